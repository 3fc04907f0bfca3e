"""Runs the fenced blocks of a Markdown page as its reader would, from top to bottom.

A `bash` block runs in a directory that looks like a clone; variables and the working directory
carry over to the next one. A `python` block whose first line is `# NAME.py` is saved as that file;
any other is executed in one Python per page, as the cells of a notebook are (`await` works). There
is no way to leave out a block of these two languages: what should not run is of another, as `text`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK_LIMIT_S = 90.0
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+|~~~+)(?P<language>[\w+-]*)[^\n]*$")
_FILE_NAME = re.compile(r"\A# (?P<name>[\w-]+\.py)$", re.MULTILINE)
_CARRY = """
source ./.carried 2>/dev/null || true
set -euo pipefail
trap '{ declare -px; printf "cd %q\\n" "$PWD"; } >"$CARRIED"' EXIT
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its first line, its language and its text."""

    page: Path
    line: int
    language: str
    text: str


class BlockError(AssertionError):
    """A block of the documentation does not do what the page lets its reader expect."""

    def __init__(self, block: Block, output: str) -> None:
        where = f"{os.path.relpath(block.page, ROOT)}:{block.line}"
        super().__init__(f"{where}: the {block.language} block fails\n{block.text}\n{output}")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, indented ones (in lists) too.

    Raises:
        ValueError: a fence is not closed.
    """
    found: list[Block] = []
    lines = iter(enumerate(page.read_text().splitlines(), start=1))
    for number, line in lines:
        opening = _FENCE.match(line)
        if not opening:
            continue
        indent, ticks = opening["indent"], opening["ticks"]
        body: list[str] = []
        for _, inner in lines:
            if inner.strip() == ticks:
                break
            body.append(inner.removeprefix(indent))
        else:
            raise ValueError(f"{page}:{number}: the fence is not closed")
        found.append(Block(page, number + 1, opening["language"], "\n".join(body) + "\n"))
    return found


def run_page(page: Path, folder: Path) -> None:
    """Run a page's blocks in `folder`, which is made to look like a clone.

    Raises:
        BlockError: a block failed, or took longer than BLOCK_LIMIT_S.
    """
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "bin").symlink_to(ROOT / "bin")
    env = {
        **os.environ,
        "PATH": f"{ROOT / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "CARRIED": str(folder / ".carried"),
    }
    with _python_session(folder, env) as execute:
        for block in blocks(page):
            name = _FILE_NAME.match(block.text)
            if block.language == "bash":
                _run_bash(block, folder, env)
            elif block.language == "python" and name:
                (folder / name["name"]).write_text(block.text)
            elif block.language == "python":
                execute(block)


def _run_bash(block: Block, folder: Path, env: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            ["bash", "-c", _CARRY + block.text],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BLOCK_LIMIT_S,
        )
    except subprocess.TimeoutExpired as late:
        raise BlockError(block, f"not done after {BLOCK_LIMIT_S:g} s") from late
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace")
        raise BlockError(block, f"exit code {done.returncode}\n{said}")


@contextmanager
def _python_session(folder: Path, env: dict[str, str]) -> "Iterator[_Session]":
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("cells.py"))],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Session(process)
    finally:
        process.communicate(timeout=BLOCK_LIMIT_S)


@dataclass(frozen=True)
class _Session:
    """One Python for all cells of a page."""

    process: "subprocess.Popen[str]"

    def __call__(self, block: Block) -> None:
        assert self.process.stdin
        assert self.process.stdout
        name = f"<{block.page.name}:{block.line}>"
        self.process.stdin.write(json.dumps([name, block.text]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        is_fine, output = json.loads(answer or '[false, "Python is gone"]')
        if not is_fine:
            raise BlockError(block, output)
