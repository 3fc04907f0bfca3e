import subprocess
import sys
from pathlib import Path

import pytest

import engine

ROOT = Path(__file__).parents[3]
FLOW_LANGUAGE = ("engine.flow", "engine.errors", "engine.ids")
HEAVY = (
    "asyncio",
    "click",
    "rich",
    "numpy",
    "msgpack",
    "boto3",
    "aiobotocore",
    "sqlite3",
    "socket",
)


def modules_after(statement: str) -> set[str]:
    """The modules that a statement adds to a fresh interpreter."""
    program = (
        f"import sys; before = set(sys.modules); {statement}; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_import_engine_imports_nothing_else_of_it() -> None:
    added = modules_after("import engine")

    assert {m for m in added if m.startswith("engine")} == {"engine"}
    assert not added.intersection(HEAVY)
    assert len(added) < 30


def test_the_flow_language_imports_nothing_heavy_and_nothing_above_it() -> None:
    added = modules_after("from engine import FlowSpec, Parameter, current, retry, step")
    ours = {m for m in added if m.startswith("engine.")}

    assert not added.intersection(HEAVY)
    assert {m for m in ours if not m.startswith(FLOW_LANGUAGE)} == set()
    assert len(added) < 95


def test_linting_imports_nothing_heavy() -> None:
    added = modules_after("import engine.flow.lint, engine.worker.loader")

    assert not added.intersection(HEAVY)
    assert len(added) < 115


@pytest.mark.parametrize("name", ["FlowSpec", "step", "Parameter", "JSONType", "current", "retry"])
def test_public_names_are_loaded_when_they_are_used(name: str) -> None:
    assert getattr(engine, name) is getattr(engine, name)
    assert name in engine.__all__
    assert name in dir(engine)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'nope'"):
        engine.nope  # noqa: B018
