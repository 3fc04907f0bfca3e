"""The podman runner talks to podman as its pages say; a program of ours stands in for it here."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.testing.batch.fleet import OUT_OF_MEMORY, Start
from engine.testing.batch.jobs import Container, Job, Outcome, Work
from engine.testing.batch.podman import PodmanRunner

# Runs the words after the image, with the variables given by --env and no others.
PODMAN = r"""#!/usr/bin/env python3
import os, subprocess, sys
verb, *words = sys.argv[1:]
with open(os.environ["PODMAN_LOG"], "a") as log:
    print(verb, *words, file=log)
if verb == "inspect":
    print(os.environ.get("PODMAN_OOM", "false"))
if verb == "run":
    env = dict(words[i + 1].split("=", 1) for i, w in enumerate(words) if w == "--env")
    image = words.index("an-image") if "an-image" in words else sys.exit(125)
    sys.exit(subprocess.call(words[image + 1 :], env={**env, "PATH": os.environ["PATH"]}))
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(PODMAN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/local/bin:/usr/bin:/bin")
    monkeypatch.setenv("PODMAN_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def run(script: str, *, image: str = "an-image") -> tuple[Outcome, list[str]]:
    container = Container(image, ("sh", "-c", script), {"A": "1"}, 1, 512, "/g", "p", {})
    work = Work("arn:d", "d", "arn:q", (container,))
    job = Job("id:3", "job", work, 0.0, attempt=1, place="arn/ce", index=3)
    lines: list[str] = []

    def write(said: Sequence[str]) -> None:
        lines.extend(said)

    runner = PodmanRunner({"B": "2"})
    outcome = asyncio.run(runner.run(Start(job, 0, 1, "stream"), lambda: None, write))
    return outcome, lines


def test_a_container_gets_its_variables_and_its_limit_and_is_removed(log: Path) -> None:
    outcome, lines = run('echo "$A $B $AWS_BATCH_JOB_ARRAY_INDEX"; exit 3')
    assert (outcome, lines) == (Outcome(3), ["1 2 3"])
    ran, _, removed = log.read_text().splitlines()
    assert "--pull never" in ran
    assert "--memory 512m" in ran
    assert "--name aflow-id-3-0 " in ran
    assert removed == "rm --force --time 0 aflow-id-3-0"


def test_a_container_that_used_too_much_memory_is_told(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODMAN_OOM", "true")
    assert run("exit 137")[0] == OUT_OF_MEMORY


def test_an_image_that_podman_has_not_is_told(log: Path) -> None:
    outcome, _ = run("exit 0", image="another")
    assert outcome.exit_code is None
    assert outcome.reason == "CannotPullContainerError: another is not on this machine"


def test_a_command_that_the_image_has_not_is_told(log: Path) -> None:
    outcome, _ = run("no-such-program")
    assert outcome.exit_code is None
    assert outcome.reason.startswith("CannotStartContainerError")
