"""Runs flow files with real processes, and reads the runs by the client and by the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Flow, Run, Task

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def aflow(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, limit_s: float = LIMIT_S
) -> Said:
    """Call the command line as a user does; a hanging one fails the test."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from engine.cli.main import main; main()", *words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Bench:
    """A flow file in a directory of its own, with a datastore of its own (see `datastore`)."""

    flow: Path

    @classmethod
    def holding(cls, source: str, folder: Path) -> "Bench":
        path = folder / "shaped.py"
        path.write_text(source)
        return cls(path)

    def aflow(self, *words: str, **env: str) -> Said:
        return aflow(*words, cwd=self.flow.parent, env=env)

    def run(self, *words: str, expected: int = 0, **env: str) -> Run:
        """Run the flow, check the exit code, and open the run with the client."""
        said = self.aflow("run", str(self.flow), *words, **env)
        assert said.code == expected, said
        return self.latest()

    def resume(self, *words: str, expected: int = 0, **env: str) -> Run:
        said = self.aflow("resume", str(self.flow), *words, **env)
        assert said.code == expected, said
        return self.latest()

    def latest(self) -> Run:
        run = Flow("Shaped").latest_run
        assert run is not None
        return run

    def json(self, *words: str) -> Any:  # Any: whatever JSON the command prints
        said = self.aflow(*words, "--json")
        assert said.code == 0, said
        return json.loads(said.out)


def tasks(run: Run, step: str) -> list[Task]:
    return list(run[step])


def values(run: Run, step: str, artifact: str) -> list[Any]:  # Any: users' values
    """An artifact of all tasks of a step, in the order of the client's listing."""
    return [getattr(task.data, artifact) for task in run[step]]
