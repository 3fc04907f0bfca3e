"""The package's bytes: the same everywhere, readable by tar, refused when they would do harm."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.package.bundle import Bundle, pack, suffixes_of
from engine.package.tree import Stamp, look
from engine.stores.directory import digest_of
from tests.unit.package.trees import PY, age, plant

FILES = {"flow.py": "print(1)\n", "lib/a.py": "", "lib/b.py": "b" * 1000, "é/ü.py": "x"}


def packed(root: Path) -> bytes:
    return pack(look(str(root), PY))


def test_equal_trees_are_equal_bytes_whoever_wrote_them_when_and_in_which_order(
    tmp_path: Path,
) -> None:
    here = plant(tmp_path / "here", FILES)
    there = plant(tmp_path / "there", dict(reversed(FILES.items())))
    age(there)
    (there / "flow.py").chmod(0o600)
    (there / "ignored.txt").write_text("not code")

    assert packed(here) == packed(there)


def test_the_bytes_are_those_of_every_other_machine(tmp_path: Path) -> None:
    root = plant(tmp_path, FILES)
    (root / "run.py").write_text("")
    (root / "run.py").chmod(0o755)
    (root / "link.py").symlink_to("flow.py")

    assert digest_of((packed(root),)) == (
        "79ee80028fc994167f301a19d730736ed41984f68c78771bb21aaf09abbc8756"
    )


@pytest.mark.parametrize("change", ["content", "name", "mode"])
def test_a_change_of_content_name_or_mode_changes_the_bytes(tmp_path: Path, change: str) -> None:
    root = plant(tmp_path, FILES)
    before = packed(root)
    if change == "content":
        (root / "lib/a.py").write_text("#")
    elif change == "name":
        (root / "lib/a.py").rename(root / "lib/c.py")
    else:
        (root / "lib/a.py").chmod(0o755)

    assert packed(root) != before


def test_the_files_come_back_as_they_were(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", FILES)
    (root / "flow.py").chmod(0o755)
    (root / "link.py").symlink_to("lib/b.py")
    bundle = Bundle(packed(root))

    bundle.extract(tmp_path / "out")

    assert bundle.files == ["flow.py", "lib/a.py", "lib/b.py", "link.py", "é/ü.py"]
    assert bundle.read("lib/b.py") == bundle.read("link.py") == b"b" * 1000
    assert bundle.sizes()["lib/b.py"] == 1000
    for path, text in FILES.items():
        assert (tmp_path / "out" / path).read_text() == text
    assert os.access(tmp_path / "out" / "flow.py", os.X_OK)
    assert (tmp_path / "out" / "link.py").resolve() == tmp_path / "out" / "lib" / "b.py"


def test_the_files_come_back_on_the_first_python_3_11(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12 has 3.11.2; the filters of tarfile came with 3.11.4."""
    for name in ("FilterError", "data_filter", "tar_filter", "fully_trusted_filter"):
        monkeypatch.delattr(tarfile, name)
    monkeypatch.delattr(tarfile.TarFile, "extractall")
    monkeypatch.delattr(tarfile.TarFile, "extract")

    Bundle(packed(plant(tmp_path / "root", FILES))).extract(tmp_path / "out")

    assert (tmp_path / "out" / "lib" / "a.py").read_text() == FILES["lib/a.py"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_tar_reads_it(tmp_path: Path) -> None:
    long = "d" * 120 + "/" + "f" * 120 + ".py"
    (tmp_path / "code.tar").write_bytes(packed(plant(tmp_path / "root", {**FILES, long: "long"})))

    listed = subprocess.run(
        ["tar", "tf", "code.tar", "--quoting-style=literal"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )

    assert listed.stdout.decode().splitlines() == sorted([*FILES, long])


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=70
).filter(lambda name: not name.startswith("."))


@example(["0", "pyvenv.cfg"], b"", "0")
@given(st.lists(NAMES, min_size=1, max_size=4), st.binary(max_size=1500), NAMES)
def test_any_path_and_any_bytes_come_back(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], data: bytes, target: str
) -> None:
    if any(len(os.fsencode(part)) > 250 for part in (*parts, target)):
        return
    root = tmp_path_factory.mktemp("tree")
    path = "/".join(parts)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
    stamp = Stamp(len(data), 0, 0, 0)
    tree = look(str(root), ("",))
    is_no_code = not {"__pycache__", "pyvenv.cfg"}.isdisjoint(parts)  # a cache, an environment
    assert dict(tree.files).keys() == {path} or is_no_code

    tar = Bundle(pack(type(tree)(str(root), {path: stamp}, {f"{path}~": target}, {}, tree.known)))

    with tar.open() as opened:
        file, link = opened.getmembers()
        extracted = opened.extractfile(file)
        assert extracted is not None
        assert (file.name, extracted.read(), file.mtime, file.uid) == (path, data, 0, 0)
        assert (link.name, link.linkname, link.issym()) == (f"{path}~", target, True)
    shutil.rmtree(root)


def hostile(*members: tuple[str, bytes, str]) -> Bundle:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return Bundle(data.getvalue())


@pytest.mark.parametrize(
    "members",
    [
        [("../evil.py", tarfile.REGTYPE, "")],
        [("a/../../evil.py", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/etc")],
        [("link", tarfile.SYMTYPE, "../..")],
        [("hard", tarfile.LNKTYPE, "../../etc/passwd")],
        [("device", tarfile.CHRTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/evil.py", tarfile.REGTYPE, "")],
    ],
)
def test_s03_a_package_that_would_write_elsewhere_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    inside = tmp_path / "a" / "out"

    with pytest.raises(StoreError, match="refused"):
        hostile(*members).extract(inside)

    assert not list(tmp_path.rglob("evil.py"))


def test_s03_an_absolute_name_lands_inside(tmp_path: Path) -> None:
    hostile(("/etc/evil.py", tarfile.REGTYPE, "")).extract(tmp_path / "out")

    assert (tmp_path / "out" / "etc" / "evil.py").exists()


def test_bytes_that_are_no_package_are_refused() -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        _ = Bundle(b"\x07" * 2000).files


def test_suffixes_are_read_from_text() -> None:
    assert suffixes_of(".py,.R,.py") == (".R", ".py")
    assert suffixes_of("none") == ()
