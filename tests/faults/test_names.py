"""S-03: no name, wherever it comes from, leads out of the datastore."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine import client
from engine.errors import EngineError, UnsafeNameError, UsageError
from engine.ids import Pathspec, safe_name
from engine.scheduler.journal import SucceededRecord
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Manifest
from tests.cli.conftest import Call, aflow  # noqa: F401  # a fixture
from tests.unit.client.stored import START, Stored, succeeded

CORPUS = [
    *("..", ".", "../..", "../../outside", "..%2f..%2foutside", "%2e%2e", "%252e%252e%252f"),
    *("/etc/passwd", "//x", "a/../b", "a//b", "~root", "$HOME", "-", "--", "-rf"),
    *("..\\..\\outside", "C:\\x", "a\\b", "a\0b", "\0", "a\nb", "a\rb", "\x1b[2J"),
    *(
        "\u2024\u2024",
        "\uff0e\uff0e/",
        "\u2025",
        "\uff0f",
        "\u2215",
        "a\u202eb",
        "\u00e9",
        "\u0430",
    ),
    *("a..b", "a" * 129, "x" * 5000, " ", "a b", ".hidden", "*", "?", "[a]", "a;b", "`a`", "$(a)"),
]
SECRET = "the secret of another directory"
READERS = (
    *(["status"], ["logs"], ["dump"], ["tag", "list"], ["tag", "add", "{}", "t"]),
    *(["list"], ["du"], ["delete", "--yes"], ["resume", "flow.py"]),
)


@pytest.fixture
def outside(datastore: Path) -> Path:
    """A directory beside the datastore that looks like a run of it."""
    succeeded(datastore, "R1")
    folder = datastore.parent / "outside"
    folder.mkdir()
    for name in ("journal", "log", "lock"):
        (folder / name).write_text(SECRET)
    return folder


@pytest.mark.parametrize("words", READERS, ids=lambda words: " ".join(words))
def test_s03_no_word_of_a_command_leads_out(
    aflow: Call,  # noqa: F811  # the fixture
    outside: Path,
    words: list[str],
) -> None:
    Path("flow.py").write_text("")
    for name in CORPUS:
        for text in (name, f"Fan/{name}", f"Fan/R1/{name}", f"Fan/R1/work/{name}"):
            if words[0] in ("list", "du", "resume", "delete") and text.startswith("Fan/R1"):
                continue
            call = [w.format(text) for w in words]
            done = aflow(*(call if call != words else [*words, "--", text]))
            assert done.code in (1, 2, 5), (text, done.code, done.out, done.err)
            assert SECRET not in done.out + done.err
            assert "\x1b[2J" not in done.out + done.err
    assert {path.read_text() for path in outside.iterdir()} == {SECRET}


def test_s03_no_name_of_the_client_leads_out(datastore: Path, outside: Path) -> None:
    for name in CORPUS:
        for ask in (
            lambda: list(client.Flow(name)),  # noqa: B023  # called at once
            lambda: client.Run(f"Fan/{name}").successful,  # noqa: B023
            lambda: client.Task(f"Fan/R1/work/{name}").exception,  # noqa: B023
            lambda: client.Flow("Fan")[name].successful,  # noqa: B023
        ):
            with pytest.raises((EngineError, KeyError)) as caught:
                ask()
            assert SECRET not in str(caught.value)


def test_s03_no_name_in_a_journal_leads_out(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    outside: Path,
) -> None:
    run = Stored(datastore, "R2", origin_run_id="../../../outside")
    manifest = Manifest("../../..", "../outside", "../x", "../../0", 0)
    run.append(SucceededRecord(1, START, 0, 1, 2, manifest.pack()))
    run.end("succeeded")
    run.die()
    Path("flow.py").write_text(FLOW)
    assert SECRET not in aflow("status", "R2").out
    assert aflow("fsck").code == 6, "the manifest is not the run's"
    done = aflow("resume", "flow.py", "R2")
    assert done.code == 0, done.err
    assert {path.read_text() for path in outside.iterdir()} == {SECRET}


BODY = """
from engine import FlowSpec, step


class Fan(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        {body}
"""
FLOW = BODY.format(body="pass")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", "a" * 129, "%2e%2e", "-x", ""])
def test_s03_a_step_cannot_name_an_artifact_so(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    name: str,
) -> None:
    Path("flow.py").write_text(BODY.format(body=f"setattr(self, {name!r}, 1)"))
    done = aflow("run", "flow.py")
    assert done.code == 1
    assert "an artifact's name is one that Python takes after `self.`" in done.err


@pytest.mark.parametrize("name", ["Flu\u00df", "F" * 129, "\u0424low"])
def test_s03_a_flow_cannot_be_named_so(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    name: str,
) -> None:
    Path("flow.py").write_text(FLOW.replace("Fan", name))
    done = aflow("check", "flow.py")
    assert done.code == 1
    assert "cannot be part of a path" in done.err


def test_s03_a_link_in_the_place_of_a_run_is_no_run(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    outside: Path,
) -> None:
    (datastore / "runs/Fan/R2").symlink_to(outside)
    (datastore / "runs/Fox").symlink_to(outside.parent)
    (datastore / "runs/a..b").mkdir()
    assert aflow("fsck").lines == ["1 runs checked: all is well"]
    for words in (["gc", "--yes"], ["du"], ["list"], ["status", "R1"]):
        assert aflow(*words).code == 0
    for name in ("journal", "log"):
        path = datastore / "runs/Fan/R1" / name
        path.unlink()
        path.symlink_to(outside / name)
    assert aflow("dump", "R1/work").code == 6
    assert aflow("logs", "R1").code == 6
    assert {path.read_text() for path in outside.iterdir()} == {SECRET}


def test_s03_flows_whose_names_differ_in_case_are_two(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
) -> None:
    succeeded(datastore, "R1", values=[{"x": 1}], n=1)
    succeeded(datastore, "R1", flow="FAN", values=[{"x": 2}], n=1)
    assert aflow("dump", "Fan/R1/work/0/x").out == "1\n"
    assert aflow("dump", "FAN/R1/work/0/x").out == "2\n"
    assert aflow("fsck").code == 0


pieces = st.sampled_from(
    [
        *("..", ".", "/", "\\", "%2e", "%252e", "%c0%ae", "\0", "\n", "~", "a", "A", "-", "_", ":"),
        *("\u2024", "\uff0f", "\uff0e", "\u202e", "\u0131", "\u212a"),
    ]
)
names = st.text(max_size=140) | st.lists(pieces, max_size=12).map("".join)


@given(names)
@example("..")
@example("a..b")
@example("a" * 128)
def test_s03_a_name_that_is_let_through_is_one_plain_part_of_a_path(name: str) -> None:
    try:
        found = safe_name(name, what="name")
    except UnsafeNameError:
        return
    assert found == name
    assert os.path.basename(name) == name == os.path.normpath(name)
    assert name.isascii()
    assert name.isprintable()
    assert len(name.encode()) <= 128
    assert not {*name} & {*'/\\%:*?"<>| ~$`;&'}
    assert name[0] not in "-."


@given(st.lists(names, min_size=1, max_size=6).map("/".join))
def test_s03_a_pathspec_has_such_parts_only(text: str) -> None:
    try:
        found = Pathspec.parse(text)
    except UsageError:
        return
    assert str(found) == text
    assert all(safe_name(part, what="part") for part in text.split("/"))


@given(names | st.text("0123456789abcdefABCDEF/.", min_size=60, max_size=70))
def test_s03_a_digest_is_64_digits_or_no_path(name: str) -> None:
    directory = BlobDirectory("/store/blobs")
    for path_of in (blob_key, directory.path):
        try:
            path = path_of(name)
        except EngineError:
            assert len(name) != 64 or name.strip("0123456789abcdef")
        else:
            assert path.endswith(f"blobs/{name[:2]}/{name}")
