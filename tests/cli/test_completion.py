"""Words that a shell completes."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.commands import VERBS
from engine.cli.complete import answer
from tests.cli.conftest import Call, variables
from tests.unit.client.stored import (
    BEGAN_US,
    succeeded,
)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(aflow: Call, shell: str) -> None:
    assert "aflow __complete" in aflow("completion", shell).out


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("aflow res", ["resume"]),
        ("aflow logs @", ["latest", "latest-failed"]),
        ("aflow logs @lat", ["latest", "latest-failed"]),
        ("aflow dump R1/e", ["R1/end"]),
        ("aflow dump R1/end/", ["R1/end/0"]),
        ("aflow completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_bash_is_given_what_follows_the_last_break_of_a_word(
    aflow: Call, datastore: Path, line: str, replies: list[str]
) -> None:
    succeeded(datastore, "R1")
    script = (
        f'aflow() {{ {sys.executable} -m engine.cli.main "$@"; }}\n'
        f"{aflow('completion', 'bash').out}\n"
        f"COMP_LINE='{line}' COMP_POINT={len(line)}\n_aflow\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )

    done = subprocess.run(
        ["bash", "-c", script], env=variables(datastore), capture_output=True, text=True
    )

    assert (done.stdout.splitlines(), done.stderr) == (replies, "")


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["re"], ["resume"]),
        ([""], list(VERBS)),
        (["--data", "lo"], ["logs"]),
        (["logs", "@"], ["@latest", "@latest-failed"]),
        (["status", "R"], ["R2", "R1"]),
        (["dump", "R1/"], ["R1/start", "R1/work", "R1/join", "R1/end"]),
        (["dump", "R1/work/"], ["R1/work/0", "R1/work/1", "R1/work/2"]),
        (["dump", "@latest/w"], ["@latest/work"]),
        (["delete", "R1"], ["R1"]),
        (["tag", "re"], ["remove", "replace"]),
        (["tag", "add", "R1"], ["R1"]),
        (["tag", "add", "R1", "x"], []),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["config", "s"], ["show"]),
        (["help", "exit"], ["exit-codes"]),
        (["list", "--st"], ["--status"]),
        (["--ver"], ["--version"]),
        (["dump", "nope/"], []),
        (["run", "fl"], []),
    ],
)
def test_words_are_completed(
    datastore: Path, capsys: pytest.CaptureFixture[str], words: list[str], offers: list[str]
) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2", began_us=BEGAN_US + 1)
    capsys.readouterr()

    assert answer(words) == 0
    assert capsys.readouterr().out.splitlines() == offers


def test_completion_says_nothing_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFLOW_DATASTORE", str(tmp_path / "nowhere"))

    assert answer(["dump", "R"]) == answer(["dump", "R/"]) == answer([]) == 0
    assert "error" not in capsys.readouterr().out
