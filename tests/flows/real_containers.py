"""The digits flow in real containers, by the very commands of docs/guide/batch.md.

python -m tests.flows.real_containers

Needs root on Debian 12, its packages and a package index: installs podman, makes an image from a
root file system, runs the flow in containers of it and here, and compares the artifacts' digests.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/guide/batch.md"
_STEPS = ("start", "score", "choose", "end")
_LIMIT_S = 1200.0


def main() -> int:
    found = {block.language: block.text for block in blocks(PAGE) if block.language == "toml"}
    image, run = [
        block.text for block in blocks(PAGE) if block.language == "text" and "podman" in block.text
    ]
    run, down = run.replace("\naflow dev down\n", "\n"), "aflow dev down --delete\n"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "containers.conf").write_text(found["toml"])
        (folder / "examples").symlink_to(ROOT / "examples")
        env = {
            **os.environ,
            "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }
        _bash(_pinned(image), folder, env)
        try:
            _bash(run, folder, env)
            there = _digests(folder, env, 'eval "$(aflow dev env)"; D=s3://aflow-dev/flows;')
        finally:
            _bash(down, folder, env)
        _bash("aflow run examples/digits.py --datastore here", folder, env)
        here = _digests(folder, env, "D=here;")
    tasks = [task for step in here.values() for task in step]
    assert there == here, "the containers left something else"
    count = sum(map(len, tasks))
    sys.stdout.write(
        f"{len(tasks)} tasks ran in containers, {count} artifacts equal to those here\n"
    )
    return 0


def _pinned(commands: str) -> str:
    """The libraries in the versions that are here, for pickles of others differ."""
    for library in ("numpy", "scikit-learn", "scipy"):
        pinned = f"{library}=={version(library)}"
        commands = commands.replace(f" {library}", f" {pinned}")
    return commands


def _bash(commands: str, folder: Path, env: dict[str, str]) -> str:
    sys.stdout.write("".join(f"$ {line}\n" for line in commands.splitlines()))
    sys.stdout.flush()
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_LIMIT_S,
    ).stdout


def _digests(folder: Path, env: dict[str, str], before: str) -> dict[str, list[dict[str, str]]]:
    """Of the latest run, by step, of each of its tasks, by artifact."""
    found = {}
    for step in _STEPS:
        said = _bash(f'{before} aflow dump @latest/{step} --json --datastore "$D"', folder, env)
        tasks = json.loads(said)["tasks"]
        found[step] = [{n: a["sha"] for n, a in task["artifacts"].items()} for task in tasks]
    return found


if __name__ == "__main__":
    sys.exit(main())
