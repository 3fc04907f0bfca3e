"""bin/aflow makes its environment on first use. A script stands in for uv: nothing is fetched."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "dirname", "flock", "mkdir", "mv", "readlink", "rm", "sed", "tail")
SETUP = "[options.extras_require]\nexamples =\n    numpy\n\n[tool:pytest]\naddopts = -q\n"
MAIN = """
import json, os, sys
def main():
    print(json.dumps([os.getcwd(), sys.argv[1:], os.environ.get("PYTHONDONTWRITEBYTECODE")]))
"""
UV = f"""#!/bin/bash
[[ ! $BROKEN_UV ]] || {{ echo "no route to the index"; exit 1; }}
case $1 in
  venv) exec "{sys.executable}" -m venv --without-pip "${{@: -1}}" ;;
  pip) echo "${{@: -1}}" >>"$INSTALLED"
       [[ ! $INTERRUPT ]] || kill -9 $PPID
       python=$4
       site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
       echo "${{@: -1}}" | sed 's/\\[.*//' >"$site/clone.pth" ;;
esac
"""


class Clone:
    """A clone of aflow with next to nothing in it, and what its installer was asked for."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.cwd = folder / "elsewhere"
        self.cwd.mkdir()
        shutil.copytree(ROOT / "bin", self.root / "bin")
        (self.root / "setup.cfg").write_text(SETUP)
        (self.root / "engine" / "cli").mkdir(parents=True)
        (self.root / "engine" / "cli" / "main.py").write_text(MAIN)
        tools = folder / "tools"
        tools.mkdir()
        (tools / "uv").write_text(UV)
        (tools / "uv").chmod(0o755)
        for name in TOOLS:
            (tools / name).symlink_to(shutil.which(name) or "")
        self.log = folder / "installed"
        self.env = {
            "PATH": str(tools),
            "INSTALLED": str(self.log),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def aflow(
        self, *words: str, command: Path | None = None, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [command or self.root / "bin" / "aflow", *words],
            cwd=self.cwd,
            env={**self.env, **env},
            capture_output=True,
            text=True,
        )

    @property
    def installed(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.rpartition("/")[2] for line in lines]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_first_use_makes_the_environment_and_the_next_ones_only_start(clone: Clone) -> None:
    first, second = clone.aflow("run", "a b"), clone.aflow("run", "a b")
    assert first.stdout == second.stdout == f'["{clone.cwd}", ["run", "a b"], null]\n'
    assert first.stderr.startswith("aflow: making the environment (first use): .venv ...")
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""
    assert clone.installed == ["clone"]


def test_two_at_once_make_it_once(clone: Clone) -> None:
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(clone.aflow, ["a", "b", "c"]))
    assert [d.returncode for d in done] == [0, 0, 0]
    assert clone.installed == ["clone"]


def test_an_interrupted_making_is_made_anew(clone: Clone) -> None:
    clone.aflow(INTERRUPT="1")
    half = clone.root / ".venv" / "half"
    half.touch()
    assert clone.aflow().returncode == 0
    assert not half.exists()
    assert clone.installed == ["clone", "clone"]


def test_an_interrupted_update_keeps_what_is_there(clone: Clone) -> None:
    clone.aflow()
    setup = clone.root / "setup.cfg"
    setup.write_text(SETUP.replace("numpy", "numpy\n    pandas"))
    kept = clone.root / ".venv" / "kept"
    kept.touch()
    clone.aflow(INTERRUPT="1")
    assert "bringing the environment up to date" in clone.aflow().stderr
    assert kept.exists()


def test_a_clone_that_was_moved_makes_its_environment_anew(clone: Clone) -> None:
    clone.aflow()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    done = clone.aflow()
    assert done.returncode == 0
    assert clone.installed == ["clone", "moved"]


def test_an_environment_made_by_hand_is_filled_not_replaced(clone: Clone) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", clone.root / ".venv"], check=True
    )
    kept = clone.root / ".venv" / "kept"
    kept.touch()
    assert clone.aflow().returncode == 0
    assert kept.exists()


def test_a_flow_file_asks_for_an_extra_in_its_first_lines(clone: Clone) -> None:
    (clone.cwd / "flow.py").write_text("# aflow: extra=examples\nimport numpy\n")
    clone.aflow("run", "flow.py:Name")
    clone.aflow("run", "flow.py")
    clone.aflow("--help")
    assert clone.installed == ["clone[examples]"]


def test_dev_asks_for_its_extra_and_no_other_verb_does(clone: Clone) -> None:
    clone.aflow("run", "dev")
    clone.aflow("dev", "up")
    assert clone.installed == ["clone", "clone[dev]"]


def test_an_extra_stays_when_another_is_asked_for(clone: Clone) -> None:
    for name in ("examples", "arrow"):
        (clone.cwd / "flow.py").write_text(f"# aflow: extra={name}\n")
        clone.aflow("run", "flow.py")
    assert clone.installed == ["clone[examples]", "clone[examples,arrow]"]


def test_only_what_an_installer_reads_of_setup_cfg_brings_an_update(clone: Clone) -> None:
    clone.aflow()
    setup = clone.root / "setup.cfg"
    setup.write_text(SETUP.replace("-q", "-v"))
    clone.aflow()
    assert clone.installed == ["clone"]
    setup.write_text(SETUP.replace("numpy", "scipy"))
    clone.aflow()
    assert clone.installed == ["clone", "clone"]


def test_a_failure_says_why_and_ends_with_3(clone: Clone) -> None:
    done = clone.aflow(BROKEN_UV="1")  # and there is no other Python to make one with
    assert done.returncode == 3
    assert done.stdout == ""
    assert "no Python 3.11 or newer with venv was found" in done.stderr
    assert "error[environment]: the environment could not be made" in done.stderr
    assert str(clone.root / ".cache" / "environment.log") in done.stderr


def test_nothing_in_the_working_directory_stands_in_for_aflow(clone: Clone) -> None:
    (clone.cwd / "engine").mkdir()
    (clone.cwd / "engine" / "__init__.py").write_text("raise SystemExit('the wrong engine')")
    assert clone.aflow().returncode == 0


def test_links_to_the_command_and_to_the_clone_work(clone: Clone, tmp_path: Path) -> None:
    clone.aflow()
    link = tmp_path / "links"
    link.mkdir()
    (link / "aflow").symlink_to(os.path.relpath(clone.root / "bin" / "aflow", link))
    (link / "clone").symlink_to(clone.root)
    assert clone.aflow(command=link / "aflow").returncode == 0
    assert clone.aflow(command=link / "clone" / "bin" / "aflow").returncode == 0
    assert clone.installed == ["clone"]
