"""The frame of the command line: help, slips, errors, exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import errors
from engine.cli import main as main_module
from engine.cli.commands import FLOW_VERBS, GROUPS, VERBS, load_verb
from engine.cli.help import TOPICS
from engine.cli.options import protect_run_numbers
from engine.cli.report import InternalError, as_dict, exit_code_of, lines
from engine.cli.version import line
from engine.errors import EngineError, InvariantError, ParameterError, UsageError
from tests.cli.conftest import Call

HELP = """\
  aflow runs data-science flows, from a laptop to the cloud.
Usage: aflow [OPTIONS] COMMAND [ARGS]...

Examples:
  aflow run flow.py --alpha 0.5         run a flow with a parameter
  aflow logs -f @latest                 follow the latest run
  aflow dump @latest/train/0/model      read an artifact
  aflow resume @latest-failed           go on from the first failure

Run:
  run     Run a flow
  resume  Go on from where a run stopped
  attach  Take over a run that was left running in AWS Batch
  check   Look for faults without running
  show    Draw a flow's graph

Look:
  list     List flows, or runs
  status   Say how a run is doing
  logs     Read or follow what tasks printed
  dump     Read artifacts
  tag      Add, remove and list a run's tags
  package  List, save and describe code packages

Care:
  batch       List and end jobs in AWS Batch
  config      Show settings and where each came from
  doctor      Check this machine
  dev         Have S3 and AWS Batch on this machine, to try things on
  fsck        Check what is stored; rebuild the list of runs
  du          Say how much room flows and runs take
  gc          Remove what no run needs; delete runs by rule
  delete      Delete runs
  completion  Print a completion script for a shell
  version     Print versions
  help        Read about exit codes, limits and more
"""


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_the_help_page_begins_with_examples_and_groups_the_commands(
    aflow: Call, args: list[str]
) -> None:
    done = aflow(*args)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(HELP)


@pytest.mark.parametrize("name", VERBS)
def test_every_command_has_a_page_with_examples(aflow: Call, name: str) -> None:
    done = aflow(name, "--help")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: ")
    if name not in ("batch", "tag", "package", "config", "dev"):  # groups that have them
        assert "\nExamples:\n  aflow " in done.out
        assert "\nOptions of every command:\n" in done.out


def test_every_verb_is_in_one_group() -> None:
    assert sorted(VERBS) == sorted(name for group in GROUPS.values() for name in group)
    assert set(FLOW_VERBS) <= set(VERBS)


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["rnu"], "there is no command 'rnu'", "did you mean `aflow run`?"),
        (["flow.py"], "there is no command 'flow.py'", "did you mean `aflow run flow.py`?"),
        (["qqqq"], "there is no command 'qqqq'", "`aflow --help` lists the commands"),
        (["--datastor", "x"], "there is no option '--datastor'", "did you mean --datastore?"),
        (["list", "--limt", "3"], "there is no option '--limt'", "did you mean --limit?"),
        (["list", "--limit", "x"], "invalid value for '--limit' / '-n': 'x' is not a valid", None),
        (["list", "--limit"], "option '--limit' requires an argument", None),
        (["list", "a", "b"], "got unexpected extra argument", "`aflow list --help` lists what"),
        (["run"], "no flow is named", "`aflow run flow.py`"),
        (["run", "--hlep"], "aflow run has no option '--hlep'", "did you mean --help?"),
        (
            ["run", "--alpha", "1", "f.py"],
            "aflow run has no option '--alpha'",
            "come after its file",
        ),
        (["tag", "ad"], "there is no action 'ad'", "one of add, remove, replace, list"),
        (["tag", "add"], "no run is named", "aflow tag add RUN TAG..."),
        (["completion", "ksh"], "invalid value for '{bash|fish|zsh}'", None),
    ],
)
def test_a_slip_is_a_usage_error_with_a_suggestion(
    aflow: Call, args: list[str], message: str, hint: str | None
) -> None:
    done = aflow(*args)

    assert (done.code, done.out) == (2, "")
    first, *rest = done.err.splitlines()
    assert first.startswith(f"error[usage]: {message}")
    if hint:
        assert hint in rest[0]


def test_an_error_is_json_when_json_is_asked_for(aflow: Call) -> None:
    done = aflow("status", "nope", "--datastore", "nowhere", "--json")

    assert (done.code, done.out) == (3, "")
    error = json.loads(done.err)
    assert set(error) == {"code", "message", "hint", "details"}
    assert error["code"] == "datastore"
    assert error["details"]["path"].endswith("/nowhere")


def test_a_usage_error_is_json_too(aflow: Call) -> None:
    assert json.loads(aflow("list", "--nope", "--json").err)["code"] == "usage"


def test_debug_shows_the_traceback(aflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = aflow("status", "--datastore", "nowhere")
    debug = aflow("status", "--datastore", "nowhere", "--debug")
    monkeypatch.setenv("AFLOW_DEBUG", "1")
    by_variable = aflow("status", "--datastore", "nowhere")

    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert "Traceback" in by_variable.err
    assert debug.err.endswith(plain.err)


def test_what_nobody_foresaw_is_told_as_a_bug(
    aflow: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The clock is the one thing under `list` that a test can break without a mock of ours.
    monkeypatch.setattr("time.time_ns", lambda: 1 / 0)

    done = aflow("list", "--since", "2h", "--datastore", tmp_path)

    assert done.code == 70
    assert done.err.startswith("error[internal]: ZeroDivisionError: division by zero\n  ")
    assert "report it" in done.err


def test_a_refusal_of_the_file_system_names_the_file(aflow: Call, tmp_path: Path) -> None:
    done = aflow("show", _flow(tmp_path), "--svg", tmp_path / "no" / "such" / "dir.svg")

    assert done.code == 6
    assert "dir.svg: No such file or directory" in done.err


def _flow(folder: Path) -> Path:
    path = folder / "one.py"
    path.write_text(
        "from engine.flow.spec import FlowSpec, step\n"
        "class One(FlowSpec):\n"
        "    @step\n"
        "    def start(self):\n"
        "        self.next(self.end)\n"
        "    @step\n"
        "    def end(self):\n"
        "        pass\n"
    )
    return path


def test_settings_that_do_not_fit_end_with_3(aflow: Call, tmp_path: Path) -> None:
    (tmp_path / "work" / "aflow.toml").write_text("max_worker = 3\n")

    done = aflow("config", "show")

    assert done.code == 3
    assert "error[config]: unknown key 'max_worker'" in done.err
    assert "hint: did you mean 'max_workers'?" in done.err


def test_options_of_every_command_may_stand_on_either_side(aflow: Call, tmp_path: Path) -> None:
    before = aflow("--datastore", tmp_path / "a", "config", "show")
    after = aflow("config", "show", "--datastore", tmp_path / "a")
    both = aflow("--datastore", tmp_path / "b", "config", "show", "--datastore", tmp_path / "a")

    assert before.out == after.out == both.out
    assert str(tmp_path / "a") in before.out


def test_settings_show_their_sources(aflow: Call, datastore: Path) -> None:
    done = aflow("config", "show", "--sources", "--color", "never", "--no-config")
    as_json = json.loads(aflow("config", "show", "--json").out)

    rows = {line.split()[0]: line.split()[1:] for line in done.lines}
    assert rows["KEY"] == ["VALUE", "SOURCE"]
    assert rows["datastore"] == [str(datastore), "AFLOW_DATASTORE"]
    assert rows["color"] == ["never", "--color"]
    assert rows["isolation"] == ["fork", "default"]
    assert as_json["settings"]["user"] == {"value": "ada", "source": "AFLOW_USER"}


def test_profiles_and_files_are_chosen_by_options(aflow: Call, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("max_workers = 3\n[profile.big]\nmax_workers = 99\n")

    plain = aflow("config", "show", "--config-file", file)
    big = aflow("--config-file", file, "--profile", "big", "config", "show")

    assert re.search(r"^max_workers +3\b", plain.out, re.MULTILINE)
    assert re.search(r"^max_workers +99\b", big.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "color"),
    [
        (["--color", "always"], True),
        (["--color", "never"], False),
        (["--no-color"], False),
        ([], False),
    ],
)
def test_errors_are_coloured_when_asked_for(aflow: Call, args: list[str], color: bool) -> None:
    done = aflow("status", "--datastore", "nowhere", *args)

    assert ("\x1b[" in done.err) is color


@pytest.mark.parametrize("topic", [*TOPICS, "run", "dump"])
def test_help_has_a_page_on_each_topic(aflow: Call, topic: str) -> None:
    done = aflow("help", topic)

    assert (done.code, done.err) == (0, "")
    assert len(done.lines) > 5


def test_help_lists_its_topics_and_corrects_slips(aflow: Call) -> None:
    assert "Topics: exit-codes, runs, limits" in aflow("help").out
    wrong, unlike = aflow("help", "limit"), aflow("help", "qqqq")
    assert (wrong.code, wrong.err.splitlines()[1]) == (5, "  hint: did you mean 'limits'?")
    assert "hint: topics: exit-codes" in unlike.err


def test_the_exit_codes_of_the_help_page_are_those_of_the_errors() -> None:
    told = {
        int(row.split()[0])
        for row in TOPICS["exit-codes"].splitlines()
        if row[:5].strip()[:1].isdigit()
    }
    ours = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}

    assert ours <= told
    assert {0, 130, 143} <= told


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("task-failed", 1),
        ("flow", 1),
        ("usage", 2),
        ("parameter", 2),
        ("name", 2),
        ("config", 3),
        ("plugin", 3),
        ("datastore", 3),
        ("not-found", 5),
        ("store-access", 6),
        ("blob-corrupt", 6),
        ("executor", 6),
        ("service", 6),
        ("limit", 7),
        ("invariant", 70),
        ("what-is-this", 1),
    ],
)
def test_each_error_code_has_its_exit_code(code: str, exit_code: int) -> None:
    assert exit_code_of(code) == exit_code


def test_an_error_has_its_shape() -> None:
    error = UsageError("two\nlines", hint="mend it", where="flow.py:3  x = 1")

    assert list(lines(error)) == [
        "error[usage]: two\nlines",
        "  flow.py:3  x = 1",
        "  hint: mend it",
    ]
    assert as_dict(error) == {
        "code": "usage",
        "message": "two\nlines",
        "hint": "mend it",
        "details": {"where": "flow.py:3  x = 1"},
    }


def test_an_invariant_tells_its_story() -> None:
    assert list(lines(InvariantError("no", story=["a happened", "b happened"])))[1:3] == [
        "  a happened",
        "  b happened",
    ]


def test_errors_found_together_are_told_together() -> None:
    first, second = ParameterError("a is wrong"), ParameterError("b is wrong")
    with pytest.raises(ParameterError) as caught:
        EngineError.raise_first([first, second])

    assert [e["message"] for e in as_dict(caught.value)["others"]] == ["b is wrong"]


def test_a_bug_without_a_traceback_is_told() -> None:
    assert InternalError(ValueError("x")).where is None


def test_the_version_is_one_line(aflow: Call) -> None:
    done = aflow("version")

    assert done.out.startswith("aflow 0.")
    assert done.out.startswith(line())
    assert json.loads(aflow("version", "--json").out)["python"].startswith("3.")


def test_a_number_back_is_a_run_and_not_an_option() -> None:
    command = load_verb("logs")

    assert protect_run_numbers(command, ["-1", "-n", "-5", "--tail", "-3", "-f"]) == [
        "@-1",
        "-n",
        "-5",
        "--tail",
        "-3",
        "-f",
    ]
    assert protect_run_numbers(command, ["--", "-1"]) == ["--", "-1"]


def test_the_entry_answers_without_click_where_it_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in (["--version"], ["__complete", "versi"]):
        monkeypatch.setattr("sys.argv", ["aflow", *args])
        with pytest.raises(SystemExit) as stop:
            main_module.main()
        assert stop.value.code == 0

    assert capsys.readouterr().out.splitlines() == [line(), "version"]


def test_what_threads_and_exit_functions_have_to_do_is_done_before_the_end() -> None:
    program = """
import atexit, threading
from engine.cli.main import leave

def late():
    threading.main_thread().join()
    print("thread")

atexit.register(print, "exit function")
threading.Thread(target=late).start()
leave(7)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (7, "thread\nexit function\n")


def test_an_interrupt_of_the_wait_for_threads_ends_the_process_and_no_more() -> None:
    program = """
import _thread, atexit, threading
from engine.cli.main import leave

def endless():
    _thread.interrupt_main()
    threading.Event().wait()

atexit.register(print, "exit function")
thread = threading.Thread(target=endless)
threading._register_atexit(thread.start)
leave(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "exit function\n", "")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_process_without_a_standard_stream_ends_with_its_own_exit_code(closed: str) -> None:
    program = f"""
import sys
from engine.cli.main import invoke, leave

sys.{closed} = None  # as Python has it of a descriptor that was closed
leave(invoke(["config", "show"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
