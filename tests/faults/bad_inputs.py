"""What users get wrong, and what they are told: each case with its exit code and words of it.

`python -m tests.faults.bad_inputs` prints the table. Every case meets a datastore that holds one
finished run, which must be whole afterwards.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.flow.bad_flows import BAD_FLOWS
from tests.unit.flow.bad_gangs import BAD_GANGS

ROOT = Path(__file__).parents[2]

GOOD = """
from engine import FlowSpec, JSONType, Parameter, step


class Good(FlowSpec):
    n = Parameter("n", default=2)
    rate = Parameter("rate", default=0.5)
    options = Parameter("options", type=JSONType, default="{}")

    @step
    def start(self):
        self.items = list(range(self.n))
        self.next(self.end)

    @step
    def end(self):
        print(self.items)
"""


def body(statement: str, *, head: str = "") -> str:
    """A flow whose first step holds `statement`."""
    return f"""
from engine import FlowSpec, Parameter, step
{head}

class Faulty(FlowSpec):
    @step
    def start(self):
        {statement}
        self.next(self.end)

    @step
    def end(self):
        pass
"""


REQUIRED = """
from engine import FlowSpec, Parameter, step


class Needy(FlowSpec):
    name_of_it = Parameter("name-of-it", required=True)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass
"""

Prepare = Callable[[Path], None]


def _nothing(place: Path) -> None:
    pass


def _foreign(place: Path) -> None:
    (place / "theirs").mkdir()
    (place / "theirs" / "thesis.txt").write_text("years of work")


def _file(place: Path) -> None:
    (place / "letter").write_text("a file")


def _later(place: Path) -> None:
    (place / "later").mkdir()
    (place / "later" / "format").write_text("aflow datastore 99\n")


def _mount_point(place: Path) -> None:
    (place / "small").mkdir(exist_ok=True)


@dataclass(frozen=True)
class Case:
    """`words` follow `aflow`; FLOW in them is the file that holds `source`."""

    name: str
    words: tuple[str, ...]
    code: int
    says: str
    source: str = GOOD
    prepare: Prepare = _nothing
    env: Mapping[str, str] = field(default_factory=dict)
    mount: str = ""  # options of a tmpfs at `small`, seen by this command alone


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


RUN = ("run", "FLOW")
LINTED = (
    "start is missing",
    "next is missing",
    "unknown step",
    "unreachable step",
    "split without a join",
    "join without inputs",
    "cycle",
    "foreach over a number",
    "an artifact with a name of FlowSpec",
    "a step without self",
)


def _lint_cases() -> list[Case]:
    chosen = {flow.name: flow for flow in BAD_FLOWS + BAD_GANGS}
    return [
        Case(f"lint: {name}", RUN, 1, chosen[name].says, source=chosen[name].text)
        for name in LINTED
    ]


EMPTY_FOREACH = """
from engine import FlowSpec, step


class Faulty(FlowSpec):
    @step
    def start(self):
        self.items = [n for n in range(10) if n > 10]
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""

CASES: list[Case] = [
    *_lint_cases(),
    Case("a parameter of the wrong type", (*RUN, "--n", "two"), 2, "must be int, not 'two'"),
    Case("a parameter that is no number", (*RUN, "--rate", "fast"), 2, "must be float"),
    Case("a parameter that is no JSON", (*RUN, "--options", "{"), 2, "must be JSON"),
    Case("a parameter that there is not", (*RUN, "--nn", "2"), 2, "no option '--nn'"),
    Case("a required parameter is missing", RUN, 2, "name-of-it", source=REQUIRED),
    Case(
        "a parameter's variable of the wrong type",
        RUN,
        2,
        "AFLOW_PARAMETER_N",
        env={"AFLOW_PARAMETER_N": "two"},
    ),
    Case(
        "an artifact that cannot be stored",
        RUN,
        1,
        "self.model['lock']",
        source=body("self.model = {'lock': threading.Lock()}", head="import threading\n"),
    ),
    Case("a step that raises", RUN, 1, "ZeroDivisionError", source=body("1 / 0")),
    Case("a step that exits", RUN, 1, "exit", source=body("import os; os._exit(7)")),
    Case(
        "a foreach over nothing",
        RUN,
        1,
        "no items",
        source=EMPTY_FOREACH,
    ),
    Case("no such file", ("run", "nope.py"), 5, "there is no file"),
    Case("no such flow in the file", ("run", "FLOW:Nope"), 5, "Nope"),
    Case("a file without a flow", RUN, 5, "flow", source="x = 1\n"),
    Case("a file that does not parse", RUN, 1, "SyntaxError", source="def (:\n"),
    Case("a file whose import fails", RUN, 1, "No module named", source="import no_such_module\n"),
    Case("a directory for a flow", ("run", "."), 2, "is a directory"),
    Case("no such command", ("rum", "FLOW"), 2, "run"),
    Case("no such decorator", (*RUN, "--with", "rety:times=3"), 2, "retry"),
    Case("a decorator's value", (*RUN, "--with", "retry:times=-1"), 2, "times"),
    Case("no workers", (*RUN, "--max-workers", "0"), 2, "0 is not in the range"),
    Case("a word of no meaning", (*RUN, "--on-failure", "panic"), 2, "panic"),
    Case("an unknown setting", RUN, 3, "AFLOW_MAX_WROKERS", env={"AFLOW_MAX_WROKERS": "3"}),
    Case("a setting of the wrong type", RUN, 3, "max_workers", env={"AFLOW_MAX_WORKERS": "many"}),
    Case("a foreign directory", (*RUN, "--datastore", "theirs"), 3, "thesis.txt", prepare=_foreign),
    Case("a file for a datastore", (*RUN, "--datastore", "letter"), 3, "letter", prepare=_file),
    Case("a later datastore", (*RUN, "--datastore", "later"), 3, "version 99", prepare=_later),
    Case("a datastore of another kind", (*RUN, "--datastore", "ftp://x/y"), 3, "ftp"),
    Case(
        "a datastore that cannot be written", (*RUN, "--datastore", "/proc/aflow"), 6, "/proc/aflow"
    ),
    Case(
        "a disk that is full",
        (*RUN, "--datastore", "small"),
        6,
        "No space left on device",
        source=body("self.data = bytes(range(256)) * 2**15"),
        prepare=_mount_point,
        mount="size=1m",
    ),
    Case(
        "a disk that is read-only",
        (*RUN, "--datastore", "small"),
        6,
        "Read-only file system",
        prepare=_mount_point,
        mount="ro",
    ),
    Case("no such run", ("status", "01ZZZZZZZZZZZZZZ"), 5, "01ZZZZZZZZZZZZZZ"),
    Case("no such artifact", ("dump", "Good/-1/end/0/nope"), 5, "nope"),
    Case("a name with /..", ("logs", "../../etc/passwd"), 2, ".."),
    Case("a name with ..", ("dump", "Good/.."), 2, ".."),
    Case("a name with a newline", ("status", "Good/a\nb"), 2, "safe name"),
    Case("an empty name", ("status", "Good//start"), 2, "empty"),
    Case("a pattern that is none", ("logs", "@latest", "--grep", "("), 2, "("),
    Case("a time that is none", ("list", "--since", "whenever"), 2, "whenever"),
    Case("nothing to resume", ("resume", "FLOW"), 5, "Needy", source=REQUIRED),
    Case("a step that there is not", ("resume", "FLOW", "--step", "nope"), 2, "nope"),
    Case("a tag that is too long", (*RUN, "--tag", "x" * 600), 2, "tag"),
]


def aflow(words: tuple[str, ...], place: Path, env: Mapping[str, str], mount: str = "") -> Said:
    wrap: tuple[str, ...] = ()
    if mount:
        script = f'mount -t tmpfs -o {mount} none small && exec "$@"'
        as_root = () if os.geteuid() == 0 else ("--map-root-user",)
        wrap = ("unshare", *as_root, "--mount", "sh", "-c", script, "sh")
    kept = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    done = subprocess.run(
        [*wrap, sys.executable, "-P", "-c", "from engine.cli.main import main; main()", *words],
        cwd=place,
        env={**kept, "PYTHONPATH": str(ROOT), "AFLOW_USER": "ada", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def furnish(place: Path) -> None:
    """A directory with a datastore that holds one finished run."""
    (place / "good.py").write_text(GOOD)
    done = aflow(("run", "good.py"), place, {})
    assert done.code == 0, done.err


def attempt(case: Case, place: Path) -> Said:
    flow = place / "flow.py"
    flow.write_text(case.source)
    case.prepare(place)
    words = tuple(word.replace("FLOW", str(flow)) for word in case.words)
    return aflow(words, place, case.env, case.mount)


def lost(place: Path) -> str:
    """What is wrong with the run that was there before; "" if it is whole."""
    dump = aflow(("dump", "Good/-1/end/0/items"), place, {})
    check = aflow(("fsck", "--read-data"), place, {})
    if dump.code or dump.out.strip() != "[0, 1]":
        return f"{dump.code} {dump.out}{dump.err}"
    return "" if check.code == 0 else check.out + check.err


def main() -> None:
    """Print the table: case, exit code, first lines of the error, and whether all is kept."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        furnish(place)
        for number, case in enumerate(CASES, 1):
            said = attempt(case, place)
            error = [line for line in said.err.splitlines() if line.startswith("error[")][:1]
            told = (error or said.err.splitlines()[-1:] or ["(nothing)"])[0]
            told = told.replace(str(place), "…")
            kept = "kept" if not lost(place) else "LOST"
            mark = "" if said.code == case.code and case.says in said.err else "  UNEXPECTED"
            row = f"{number:3} | {case.name} | {said.code} | {kept} | {told[:150]}{mark}\n"
            sys.stdout.write(row)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
