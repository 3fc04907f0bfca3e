"""What a start may import, and how long it may take."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import variables

HEAVY = (
    "asyncio",
    "numpy",
    "rich",
    "sqlite3",
    "boto3",
    "botocore",
    "aioboto3",
    "pandas",
    "ssl",
    "obstore",
)


def modules_after(code: str, datastore: Path) -> set[str]:
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    env = {k: v for k, v in variables(datastore).items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_the_help_page_imports_nothing_heavy_and_no_verb(datastore: Path) -> None:
    found = modules_after("from engine.cli.main import invoke; invoke(['--help'])", datastore)

    assert not found & set(HEAVY)
    ours = {name for name in found if name.startswith("engine")}
    assert ours == {
        "engine",
        "engine.cli",
        "engine.cli.commands",
        "engine.cli.main",
        "engine.cli.options",
        "engine.config",
        "engine.crashpoints",
        "engine.errors",
        "engine.errors.base",
        "engine.errors.failure",
        "engine.errors.stores",
        "engine.settings",
    }


@pytest.mark.parametrize("module", ["engine", "engine.client"])
def test_importing_the_package_or_the_client_brings_no_loop_and_no_command_line(
    datastore: Path, module: str
) -> None:
    found = modules_after(f"import {module}", datastore)

    assert not found & {*HEAVY, "click"} - ({"sqlite3"} if module == "engine.client" else set())


def test_a_page_of_a_verb_imports_that_verb_alone(datastore: Path) -> None:
    code = "from engine.cli.main import invoke; invoke(['version', '--help'])"

    found = {name for name in modules_after(code, datastore) if name.startswith("engine.cli.")}

    assert found == {f"engine.cli.{name}" for name in ("commands", "main", "options", "version")}


def test_a_read_of_a_run_imports_no_loop(datastore: Path) -> None:
    code = "from engine.cli.main import invoke; invoke(['list'])"

    assert not modules_after(code, datastore) & {"asyncio", "numpy", "rich"}


def test_a_word_is_completed_without_click(datastore: Path) -> None:
    code = "from engine.cli.complete import answer; answer(['logs', '@'])"

    assert not modules_after(code, datastore) & {"asyncio", "numpy", "rich", "click", "sqlite3"}
