import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest

from engine import FlowSpec
from engine.errors import EngineError, FlowError, NotFoundError, UsageError
from engine.flow.lint import graph_of
from engine.worker import loader
from engine.worker.loader import adopt_main, load, load_file, target_of
from tests.unit.flow.sources import bound

ROOT = Path(__file__).parents[3]

TRAIN = """
from engine import FlowSpec, step


class Model:
    class Part:
        pass

    def __init__(self, score):
        self.score = score


class Train(FlowSpec):
    @step
    def start(self):
        self.model = Model(1)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture(autouse=True)
def _python_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What loading leaves behind in this process is taken back."""
    modules = dict(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(loader, "_executed", {})
    yield
    sys.modules.clear()
    sys.modules.update(modules)


def write(folder: Path, text: str, name: str = "train.py") -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def run(*words: str, cwd: Path) -> str:
    """What a Python program of its own prints."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_only_flow_of_a_file_is_loaded(tmp_path: Path) -> None:
    flow = load(write(tmp_path, TRAIN))

    assert flow.__name__ == "Train"
    assert flow.__module__ == "train"
    assert sys.path[0] == str(tmp_path)
    assert graph_of(flow)["start"].where == f"{tmp_path}/train.py:15"


def test_a_flow_is_loaded_by_name(tmp_path: Path) -> None:
    file = write(tmp_path, TRAIN + "class Other(Train): pass\n")

    assert load(f"{file}:Other").__name__ == "Other"
    assert load(f"{file}:Train").__name__ == "Train"


def test_a_file_is_executed_once_until_its_source_changes(tmp_path: Path) -> None:
    file = write(tmp_path, TRAIN)
    first = load(file)

    assert load(file) is first
    write(tmp_path, TRAIN + "# changed\n")
    assert load(file) is not first


def test_the_lines_that_were_executed_are_quoted_after_an_edit(tmp_path: Path) -> None:
    file = write(tmp_path, TRAIN)
    flow = load(file)

    write(tmp_path, "something else\n")

    assert graph_of(flow)["start"].next == ("end",)


def test_a_program_guarded_by_main_does_not_run(tmp_path: Path) -> None:
    file = write(tmp_path, TRAIN + 'if __name__ == "__main__":\n    raise SystemExit(9)\n')

    assert load(file).__name__ == "Train"


def test_a_flow_that_is_instantiated_without_a_guard_is_loaded(tmp_path: Path) -> None:
    assert load(write(tmp_path, TRAIN + "Train()\n")).__name__ == "Train"


def test_neighbours_of_the_file_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 42\n", "neighbour_of_train.py")
    flow = load(write(tmp_path, "from neighbour_of_train import VALUE\n" + TRAIN))

    assert sys.modules[flow.__module__].VALUE == 42  # type: ignore[attr-defined]


def test_bases_that_could_not_run_do_not_make_a_file_ambiguous(tmp_path: Path) -> None:
    text = (
        "from engine import FlowSpec, step\n"
        "class Base(FlowSpec):\n    @step\n    def a(self): pass\n"
        "    @step\n    def end(self): pass\n"
        "class Real(Base):\n    @step\n    def start(self): self.next(self.a)\n"
    )

    assert load(write(tmp_path, text)).__name__ == "Real"


def test_a_flow_that_a_file_imports_counts_if_it_defines_none(tmp_path: Path) -> None:
    write(tmp_path, TRAIN)
    file = write(tmp_path, "from train import Train\n", "start_here.py")

    assert load(file).__name__ == "Train"


def test_a_flow_of_a_package_is_loaded_by_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "", "flows_of_us/__init__.py")
    write(tmp_path, TRAIN, "flows_of_us/deep.py")
    monkeypatch.chdir(tmp_path)

    flow = load("flows_of_us.deep:Train")

    assert flow.__module__ == "flows_of_us.deep"
    assert target_of(flow) == "flows_of_us.deep:Train"
    assert load("flows_of_us/deep.py:Train").__module__ == "deep"


BAD = {
    "no such file": ("nope.py", NotFoundError, "there is no file 'nope.py'"),
    "a name near a file": ("tarin.py", NotFoundError, "there is no file 'tarin.py'"),
    "no such folder": ("no/where.py", NotFoundError, "there is no file"),
    "a directory": ("./", UsageError, "is a directory"),
    "NUL": ("a\0b.py", NotFoundError, "there is no file"),
    "a bare word": ("train", UsageError, "'train' names no flow"),
    "nothing": ("", UsageError, "is a directory"),
    "no such module": ("nowhere_at_all:Flow", NotFoundError, "no module 'nowhere_at_all'"),
    "no such submodule": ("json.nowhere:Flow", NotFoundError, "no module 'json.nowhere'"),
    "no such flow": ("train.py:Trian", NotFoundError, "there is no flow 'Trian' in train.py"),
    "a class that is no flow": ("train.py:Model", UsageError, "class 'Model' in train.py is not"),
    "a value that is no flow": ("train.py:LIMIT", UsageError, "is not a flow, but a int"),
    "FlowSpec itself": ("train.py:FlowSpec", UsageError, "class 'FlowSpec'"),
    "a file without a flow": ("empty.py", NotFoundError, "there is no flow in empty.py"),
    "several flows": ("two.py", UsageError, "there are 2 flows in two.py: One and Two"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_target_that_is_no_flow_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, TRAIN + "LIMIT = 3\n")
    write(tmp_path, "x = 1\n", "empty.py")
    write(
        tmp_path,
        "from engine import FlowSpec\nclass One(FlowSpec): pass\nclass Two(FlowSpec): pass\n",
        "two.py",
    )
    monkeypatch.chdir(tmp_path)
    target, kind, says = BAD[name]

    with pytest.raises(EngineError) as caught:
        load(target)

    assert type(caught.value) is kind
    assert says in caught.value.message
    assert caught.value.exit_code == (5 if kind is NotFoundError else 2)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("tarin.py", "did you mean 'train.py'?"),
        ("train.py:Trian", "did you mean 'Train'?"),
        ("train.py:Zzzzzzzz", "it has Train"),
        ("two.py", "name one of them: two.py:One"),
        ("train.py:LIMIT", "the flows there are Train"),
        ("empty.py:x", "a flow is a class that inherits from FlowSpec"),
    ],
)
def test_a_target_that_is_no_flow_gets_a_hint(
    target: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, TRAIN + "LIMIT = 3\n")
    write(tmp_path, "x = 1\n", "empty.py")
    write(
        tmp_path,
        "from engine import FlowSpec\nclass One(FlowSpec): pass\nclass Two(FlowSpec): pass\n",
        "two.py",
    )
    monkeypatch.chdir(tmp_path)

    with pytest.raises(EngineError) as caught:
        load(target)

    assert caught.value.hint == hint


def test_a_syntax_error_names_file_line_and_text(tmp_path: Path) -> None:
    file = write(tmp_path, "x = 1\ndef broken(:\n    pass\n")

    with pytest.raises(FlowError, match="SyntaxError: invalid syntax") as caught:
        load(file)

    assert caught.value.where == f"{file}:2  def broken(:"
    assert caught.value.exit_code == 1
    assert "train" not in sys.modules


def test_an_exception_while_importing_shows_the_users_frames_alone(tmp_path: Path) -> None:
    file = write(tmp_path, "def divide():\n    return 1 / 0\n\n\ndivide()\n")

    with pytest.raises(
        FlowError, match="cannot be loaded: ZeroDivisionError: division by zero"
    ) as caught:
        load(file)

    assert caught.value.where == f"{file}:2  return 1 / 0"
    text = caught.value.details()["traceback"]
    assert text.count('File "') == 2
    assert "loader.py" not in text
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise ValueError\n", "ValueError"),
        ("x = '\0'\n", "null bytes"),
    ],
)
def test_whatever_a_file_raises_is_a_flows_fault(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(FlowError) as caught:
        load(write(tmp_path, text))

    assert says in caught.value.message
    assert "nowhere_at_all" not in text or "install what provides" in (caught.value.hint or "")


def test_a_module_that_raises_is_a_flows_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "1 / 0\n", "raising_module.py")
    write(tmp_path, "import nowhere_at_all\n", "importing_module.py")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FlowError, match="ZeroDivisionError") as caught:
        load("raising_module:Flow")
    assert caught.value.where == f"{tmp_path}/raising_module.py:1  1 / 0"
    assert "importlib" not in caught.value.details()["traceback"]
    with pytest.raises(FlowError, match="'nowhere_at_all'"):
        load("importing_module:Flow")


def test_an_error_of_ours_while_importing_stays_what_it_is(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        TRAIN.replace("    @step", "    @retry(times=-1)\n    @step", 1).replace(
            "step\n", "retry, step\n", 1
        ),
    )

    with pytest.raises(FlowError, match=r"^@retry\(times=-1\)") as caught:
        load(file)

    assert caught.value.where == f"{file}:14  @retry(times=-1)"


def test_ctrl_c_while_importing_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(write(tmp_path, "raise KeyboardInterrupt\n"))


def test_a_file_that_fails_leaves_the_module_before_it(tmp_path: Path) -> None:
    file = write(tmp_path, TRAIN)
    module = sys.modules[load(file).__module__]
    write(tmp_path, "1 / 0\n")

    with pytest.raises(FlowError):
        load(file)

    assert sys.modules["train"] is module


def test_an_unreadable_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, TRAIN)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, who runs tests in CI, may read anything
    with pytest.raises(NotFoundError, match="cannot be read: Permission denied"):
        load(file)


def test_instances_of_the_files_classes_are_pickled_under_the_files_name(tmp_path: Path) -> None:
    flow = bound(load(write(tmp_path, TRAIN)))
    flow.start()

    data = pickle.dumps(flow.model)

    assert b"train" in data
    assert pickle.loads(data).score == 1


def test_a_name_that_python_has_gets_a_prefix(tmp_path: Path) -> None:
    assert load(write(tmp_path, TRAIN, "statistics.py")).__module__ == "aflow_statistics"
    assert load(write(tmp_path, TRAIN, "pytest.py")).__module__ == "aflow_pytest"
    assert sys.modules["pytest"] is pytest


def test_two_files_of_one_name_are_two_modules_in_turn(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", TRAIN), write(tmp_path / "b", TRAIN)
    flows = [load(first), load(second), load(first)]

    assert flows[0] is flows[2]
    assert flows[0] is not flows[1]
    assert sys.modules["train"].Train is flows[0]  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(flows[0])) is flows[0]


PRINT_PICKLE = """
import pickle, sys
from engine.worker.loader import {imports}
{prepare}
print(pickle.dumps([Model(1), Model.Part()]).hex(), target_of(Train))
"""


def test_a_run_program_and_a_loaded_file_pickle_the_same_bytes(tmp_path: Path) -> None:
    program = (
        TRAIN
        + 'if __name__ == "__main__":'
        + PRINT_PICKLE.format(
            imports="adopt_main, load_file, target_of", prepare="adopt_main()"
        ).replace("\n", "\n    ")
    )
    program += "\n    assert load_file(__file__) is sys.modules['__main__']\n"
    write(tmp_path, program)
    load_it = PRINT_PICKLE.format(
        imports="load, target_of", prepare="Train = load('train.py')\nfrom train import Model"
    )

    started = run("train.py", cwd=tmp_path)
    as_module = run("-m", "train", cwd=tmp_path)
    loaded = run("-c", load_it, cwd=tmp_path)

    assert started == loaded
    assert started.split()[1] == f"{tmp_path}/train.py:Train"
    assert as_module.split() == [started.split()[0], "train:Train"]
    load(str(tmp_path / "train.py"))
    assert pickle.loads(bytes.fromhex(started.split()[0]))[0].score == 1


def test_adopting_a_notebooks_main_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    program = ModuleType("__main__")
    program.Flow = type("Flow", (FlowSpec,), {"__module__": "__main__"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", program)

    adopt_main()

    assert program.Flow.__module__ == "__main__"
    assert target_of(program.Flow) is None


def test_a_class_of_a_functions_body_has_no_target() -> None:
    class Local(FlowSpec):
        pass

    assert target_of(Local) is None


def test_a_flow_of_a_notebook_crosses_by_value_and_can_run_there(tmp_path: Path) -> None:
    program = ModuleType("__main__")
    exec(TRAIN, program.__dict__)
    flow = program.Train
    flow.__module__ = "__main__"
    before, sys.modules["__main__"] = sys.modules["__main__"], program
    try:
        (tmp_path / "flow").write_bytes(cloudpickle.dumps(flow))
    finally:
        sys.modules["__main__"] = before
    there = """
import pickle
from tests.unit.flow.sources import bound
flow = bound(pickle.load(open('flow', 'rb')))
flow.start()
print(flow._transition, flow.model.score)
"""

    assert run("-c", there, cwd=tmp_path) == "(('end',), None) 1\n"


def test_loading_by_path_needs_no_flow(tmp_path: Path) -> None:
    assert load_file(write(tmp_path, "x = 5\n")).x == 5  # type: ignore[attr-defined]


def test_a_traceback_of_a_step_quotes_the_line_that_was_executed(tmp_path: Path) -> None:
    flow = bound(load(write(tmp_path, TRAIN.replace("Model(1)", "1 / 0"))))
    write(tmp_path, "\n" * 50)

    try:
        flow.start()
    except ZeroDivisionError as error:
        lines = traceback.format_exception(error)

    assert any("self.model = 1 / 0" in line for line in lines)
