"""The verbs that take a flow, without running one: run --help, check, show, and slips."""

import json
from pathlib import Path

import pytest

from engine.cli import flow_command
from engine.worker.loader import load
from tests.cli.conftest import Call
from tests.cli.flows import BROKEN, FAILS, HELLO, READS, write


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    return write(tmp_path, "hello_cli.py", HELLO)


def test_the_page_of_run_shows_the_parameters_of_the_flow(aflow: Call, hello: Path) -> None:
    done = aflow("run", hello, "--help")

    assert (done.code, done.err) == (0, "")
    section = done.out.partition("Parameters of HelloFlow:\n")[2].partition("\n\n")[0]
    assert [" ".join(line.split()) for line in section.splitlines()] == [
        "--alpha FLOAT how much [default: 0.5]",
        "--who_it_is, --who-it-is STR [default: 'world']",
        "--names STR [default: 'a,b,c'; a list, separated by ',']",
        "--limits JSON",
        "--color STR a name that is also ours [default: 'red']",
    ]
    assert "Usage: aflow run FLOW [OPTIONS]" in done.out


def test_a_file_to_include_is_given_by_its_path(aflow: Call, process: Call, tmp_path: Path) -> None:
    flow = write(tmp_path, "reads_cli.py", READS)
    (tmp_path / "words.txt").write_text("one two")

    page = aflow("run", flow, "--help").out
    done = process("run", flow, "--words", "words.txt")
    slip = process("run", flow, "--words", "wrods.txt")

    assert "--words FILE what to count [required]" in " ".join(page.split())
    assert (done.code, done.out) == (0, "[end/0] 2\n")
    assert (slip.code, slip.out) == (2, "")
    assert "parameter 'words': file 'wrods.txt' cannot be read: No such file" in slip.err
    assert "words = IncludeFile(" in slip.err


def test_the_page_of_run_without_a_flow_shows_the_options(aflow: Call) -> None:
    done = aflow("run", "--help")

    assert done.code == 0
    assert "--max-workers N" in done.out
    assert "Parameters of" not in done.out


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["--alhpa", "1"], 2, "there is no option '--alhpa'"),
        (["--alpha", "x"], 2, "error[parameter]: parameter 'alpha' must be float, not 'x'"),
        (["--limits", "{"], 2, "parameter 'limits' must be JSON"),
        (["--max-workers", "0"], 2, "0 is not in the range"),
        (["--with", "rety"], 2, "retry"),
        (["extra"], 2, "got unexpected extra argument"),
    ],
)
def test_a_slip_in_an_option_of_run_is_refused_before_anything_runs(
    process: Call, hello: Path, datastore: Path, args: list[str], code: int, problem: str
) -> None:
    done = process("run", hello, *args)

    assert (done.code, done.out) == (code, "")
    assert problem in done.err
    assert not list(datastore.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("target", "code", "problem"),
    [
        ("nope.py", 5, "there is no file 'nope.py'"),
        ("hello_cli.py:Nope", 5, "Nope"),
        ("nonsense", 2, "names no flow"),
        (".", 2, "is a directory"),
        ("broken_cli.py", 1, "nowhere"),
    ],
)
def test_a_flow_that_cannot_be_loaded_is_told(
    aflow: Call,
    hello: Path,
    target: str,
    code: int,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(hello.parent, "broken_cli.py", BROKEN)
    monkeypatch.chdir(hello.parent)

    done = aflow("check", target)

    assert done.code == code
    assert problem in done.err


def test_check_says_that_a_flow_is_well(aflow: Call, hello: Path) -> None:
    assert aflow("check", hello).out == "HelloFlow: the flow looks good\n"
    assert json.loads(aflow("check", f"{hello}:HelloFlow", "--json").out) == {
        "schema": "aflow/check/1",
        "flow": "HelloFlow",
        "ok": True,
    }


def test_show_prints_the_graph_and_the_parameters(aflow: Call, hello: Path) -> None:
    assert aflow("show", hello).lines == [
        "HelloFlow",
        "  Greets, many times.",
        "",
        "start   => work  for each of names",
        "    Make items.",
        "  work  => gather",
        "gather  => end  (joins start)",
        "end     end",
        "  --alpha FLOAT  how much",
        "  --who_it_is STR  ",
        "  --names STR  ",
        "  --limits JSON  ",
        "  --color STR  a name that is also ours",
    ]


def test_show_in_json_has_steps_and_parameters(aflow: Call, hello: Path) -> None:
    shown = json.loads(aflow("show", hello, "--json").out)

    assert [step["name"] for step in shown["steps"]] == ["start", "work", "gather", "end"]
    assert shown["parameters"][0] == {"name": "alpha", "type": "float", "help": "how much"}


def test_show_draws_to_a_file(aflow: Call, hello: Path, tmp_path: Path) -> None:
    done = aflow("show", hello, "--svg", tmp_path / "out.svg")

    assert (done.out, done.err) == ("", f"{tmp_path / 'out.svg'} written\n")
    assert (tmp_path / "out.svg").read_text().startswith("<svg ")


# -- python flow.py -------------------------------------------------------------------------------


def test_a_flow_s_file_has_the_same_verbs(
    hello: Path, capsys: pytest.CaptureFixture[str], datastore: Path
) -> None:
    cls = load(str(hello))

    def call(*args: str) -> tuple[int, str, str]:
        code = flow_command.call(cls, list(args), program="hello.py")
        return (code, *capsys.readouterr())

    assert call() == (0, "HelloFlow: the flow looks good\n", "")
    assert call("--no-pylint", "check")[1] == "HelloFlow: the flow looks good\n"
    code, page, _ = call("--help")
    assert code == 0
    assert page.startswith("  HelloFlow: Greets, many times.\nUsage: python hello.py [OPTIONS]")
    assert "doctor" not in page
    run_page = call("run", "--help")[1]
    assert "Usage: python hello.py run [OPTIONS]" in run_page
    assert "--alpha FLOAT" in run_page
    assert call("show")[1].startswith("HelloFlow\n")
    assert call("rnu")[0] == 2
    assert call("logs", "show", "--datastore", str(datastore), "nope")[0] == 3
    assert call("tag", "add", "x")[0] == 3
    assert call("resume", "a", "b")[0] == 2


def test_a_flow_without_words_has_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cls = load(str(write(tmp_path, "fails_cli.py", FAILS)))

    assert flow_command.call(cls, ["--help"], program="fails_cli.py") == 0
    assert capsys.readouterr().out.startswith("  FailsFlow, a flow.\n")


# -- what resume says before it runs --------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["nope"], 3, "does not exist"),
        (["a", "b"], 2, "a flow's file and a run are expected"),
        (["nope.py"], 5, "there is no file 'nope.py'"),
    ],
)
def test_a_run_that_cannot_be_resumed_is_told(
    aflow: Call, args: list[str], code: int, problem: str
) -> None:
    done = aflow("resume", *args)

    assert done.code == code
    assert problem in done.err
    assert "[FLOW] [RUN]" in aflow("resume", "--help").out
