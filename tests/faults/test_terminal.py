"""S-08: no text of a run, wherever it stands, drives the terminal of who reads it."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.cli.commands import VERBS
from engine.cli.complete import answer
from engine.flow.graph import Transition
from tests.cli.conftest import Call, aflow  # noqa: F401  # a fixture
from tests.unit.client import stored
from tests.unit.client.stored import START, Stored, work

HOSTILE = (
    "\x1b]0;owned\x07"
    "\x1b]52;c;cm0gLXJm\x07"
    "\x1b]8;;http://evil\x1b\\"
    "\x1b[2J\x1b[1;1H\x9b2J\x90q\x9c"
    "\x1bc\x07\x08\x00"
    "\u202egpj.exe\u2066\u2028"
    "a\r[end/0] done\n[end/0] Task finished successfully."
)
_SGR = re.compile(r"\x1b\[[0-9;]*m")
_DRIVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
READING = (
    ["list"],
    ["list", "Fan"],
    ["list", "--json"],
    ["status", "R1"],
    ["status", "R1", "--json"],
    ["status", "Fan/R1/work/1"],
    ["logs", "R1"],
    ["logs", "R1", "--timestamps"],
    ["logs", "R1", "--json"],
    ["dump", "R1/start"],
    ["dump", "R1/start/0/text"],
    ["dump", "R1/start/0/model"],
    ["dump", "R1/start", "--json"],
    ["tag", "list", "R1", "--system"],
    ["tag", "list", "R1", "--json"],
    ["fsck"],
    ["fsck", "--reindex", "--read-data"],
    ["du", "Fan"],
    ["gc", "--dry-run"],
    ["delete", "R1", "--dry-run"],
    ["package", "info", "R1"],
    ["package", "list", "R1"],
    ["doctor"],
    ["config", "show"],
)


@pytest.fixture
def hostile(datastore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose every text was written by an enemy, and is damaged, so that fsck talks, too."""
    failure = replace(
        stored.FAILURE,
        message=HOSTILE,
        type=HOSTILE,
        traceback=HOSTILE,
        where=HOSTILE,
        hint=HOSTILE,
        log_tail=(HOSTILE,),
    )
    monkeypatch.setattr(stored, "FAILURE", failure)
    run = Stored(datastore, "R1", user=HOSTILE)
    values = {"text": HOSTILE, "model": {HOSTILE, 1}, "deep": {"a": [HOSTILE]}, "big": HOSTILE * 99}
    run.succeed(START, values, goes=Transition(("work",), 2))
    run.say(START, "stdout", *HOSTILE.split("\n"))
    run.fail(work(1, 2))
    run.end("failed", reason=HOSTILE)
    run.die()
    for blob in datastore.glob("blobs/??/*"):
        blob.write_bytes(b"other")


@pytest.mark.parametrize("color", ["never", "always"])
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_s08_no_command_that_reads_lets_a_run_drive_the_terminal(
    aflow: Call,  # noqa: F811  # the fixture
    hostile: None,
    words: list[str],
    color: str,
) -> None:
    done = aflow(*words, "--color", color)
    for said in (done.out, done.err):
        left = _SGR.sub("", said) if color == "always" else said
        found = _DRIVES.search(left)
        assert found is None, (found, said)
        if words[0] == "logs":
            assert not [line for line in said.split("\n") if line.startswith("[end/0] ")]


def test_s08_every_command_that_reads_is_asked() -> None:
    of_the_user = {
        "run",
        "resume",
        "attach",
        "check",
        "show",
    }  # load a flow
    of_ours = {"completion", "version", "help", "dev", "batch"}  # the last asks AWS alone
    assert {words[0] for words in READING} == set(VERBS) - of_the_user - of_ours


def test_s08_what_a_shell_completes_is_harmless(
    aflow: Call,  # noqa: F811  # the fixture
    hostile: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["dump", ""], ["dump", "R1/"], ["dump", "R1/start/0/"], ["logs", "R1/"]):
        answer(words)
    assert _DRIVES.search(capsys.readouterr().out) is None
