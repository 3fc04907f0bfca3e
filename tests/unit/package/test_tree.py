"""Which files are a flow's code."""

import os
from pathlib import Path

import pytest

from engine.errors import CodePackageError
from engine.package import tree
from engine.package.tree import Known, look
from tests.unit.package.trees import PY, kept, paths, plant


def test_files_with_a_suffix_are_kept_in_all_directories(tmp_path: Path) -> None:
    plant(tmp_path, {"flow.py": "", "data.csv": "", "lib/a.py": "", "lib/deep/b.py": "", "R.R": ""})

    assert kept(tmp_path) == ["flow.py", "lib/a.py", "lib/deep/b.py"]
    assert paths(look(str(tmp_path), (".R", ".csv"))) == ["R.R", "data.csv"]


def test_hidden_files_caches_environments_and_datastores_are_left_out(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "flow.py": "",
            ".secret.py": "",
            ".git/hook.py": "",
            "__pycache__/flow.py": "",
            "env/pyvenv.cfg": "",
            "env/lib/site.py": "",
            "store/format": "",
            "store/blobs/x.py": "",
            "store/runs/y.py": "",
        },
    )

    assert kept(tmp_path) == ["flow.py"]


def test_gitignore_is_honoured_as_git_reads_it(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            ".gitignore": "build/\n*_pb2.py\n/only_top.py\n",
            "lib/.gitignore": "!kept_pb2.py\nlocal.py\n",
            "flow.py": "",
            "build/x.py": "",
            "a_pb2.py": "",
            "only_top.py": "",
            "lib/only_top.py": "",
            "lib/kept_pb2.py": "",
            "lib/other_pb2.py": "",
            "lib/local.py": "",
        },
    )

    assert kept(tmp_path) == ["flow.py", "lib/kept_pb2.py", "lib/only_top.py"]


def test_aflowignore_wins_over_the_gitignore_beside_it(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            ".gitignore": "generated.py\n",
            ".aflowignore": "!generated.py\ntests/\n",
            "flow.py": "",
            "generated.py": "",
            "tests/test_flow.py": "",
        },
    )

    assert kept(tmp_path) == ["flow.py", "generated.py"]


def test_what_the_repository_keeps_out_of_git_stays_out(tmp_path: Path) -> None:
    plant(tmp_path, {".git/HEAD": "", ".gitignore": "keys.py\n/flows/local/\n"})
    plant(tmp_path / "flows", {"flow.py": "", "keys.py": "", "local/x.py": "", "lib/keys.py": ""})

    assert kept(tmp_path / "flows") == ["flow.py"]


def test_ignore_files_above_a_directory_that_is_in_no_repository_are_not_read(
    tmp_path: Path,
) -> None:
    plant(tmp_path, {".gitignore": "*.py\n", "flows/flow.py": ""})

    assert kept(tmp_path / "flows") == ["flow.py"]


def test_the_flows_own_file_is_kept_whatever_the_rules_say(tmp_path: Path) -> None:
    plant(tmp_path, {".gitignore": "*\n", "flow.py": "", "other.py": ""})

    assert paths(look(str(tmp_path), (".R",), always=("flow.py",))) == ["flow.py"]


def test_s03_a_link_that_leads_out_is_left_out_and_told(tmp_path: Path) -> None:
    outside = plant(tmp_path / "outside", {"secret.py": "key", "pkg/mod.py": ""})
    root = plant(tmp_path / "root", {"flow.py": ""})
    (root / "secret.py").symlink_to(outside / "secret.py")
    (root / "pkg").symlink_to(outside / "pkg", target_is_directory=True)
    (root / "up.py").symlink_to("../outside/secret.py")
    (root / "gone.py").symlink_to("nowhere.py")

    found = look(str(root), PY)

    assert paths(found) == ["flow.py"]
    assert found.left_out == {
        "gone.py": "leads to nowhere.py, which is not kept",
        "pkg": f"leads out of the directory, to {outside.resolve()}/pkg",
        "secret.py": f"leads out of the directory, to {outside.resolve()}/secret.py",
        "up.py": f"leads out of the directory, to {outside.resolve()}/secret.py",
    }


def test_a_link_inside_the_directory_stays_a_relative_link(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", {"flow.py": "", "lib/mod.py": ""})
    (root / "flows").mkdir()
    (root / "flows" / "shared").symlink_to(root / "lib", target_is_directory=True)
    (root / "flows" / "mod.py").symlink_to("../lib/mod.py")
    (root / "loop").symlink_to(".", target_is_directory=True)

    found = look(str(root), PY)

    assert paths(found) == ["flow.py", "flows/mod.py", "flows/shared", "lib/mod.py"]
    assert found.links == {"flows/mod.py": "../lib/mod.py", "flows/shared": "../lib"}


def test_a_name_that_is_no_regular_file_is_left_out(tmp_path: Path) -> None:
    plant(tmp_path, {"flow.py": ""})
    os.mkfifo(tmp_path / "pipe.py")

    found = look(str(tmp_path), PY)

    assert (paths(found), found.left_out) == (["flow.py"], {"pipe.py": "not a regular file"})


def test_a_directory_that_holds_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, {f"f{i}.txt": "" for i in range(20)})
    monkeypatch.setattr(tree, "ENTRIES_MAX", 19)

    with pytest.raises(CodePackageError, match="more than 19 files") as caught:
        look(str(tmp_path), PY)

    assert ".aflowignore" in (caught.value.hint or "")


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CodePackageError, match="No such file"):
        look(str(tmp_path / "nowhere"), PY)


def test_what_a_rule_has_decided_is_not_asked_again(tmp_path: Path) -> None:
    plant(tmp_path, {".gitignore": "b.py\n", "a.py": "", "lib/b.py": "", "lib/c.py": ""})
    first = look(str(tmp_path), PY)
    told = Known(first.known.rules, {**first.known.verdicts, "lib/c.py": False})
    plant(tmp_path, {"lib/new.py": "", "lib/sub/b.py": ""})

    assert first.known.verdicts == {"a.py": True, "lib/": True, "lib/b.py": False, "lib/c.py": True}
    assert paths(look(str(tmp_path), PY, known=told)) == ["a.py", "lib/new.py"]


@pytest.mark.parametrize("where", [".gitignore", "lib/.gitignore", ".aflowignore"])
def test_a_changed_rule_is_asked_again_for_every_name_below(tmp_path: Path, where: str) -> None:
    plant(tmp_path, {"a.py": "", "lib/b.py": "", "lib/sub/b.py": ""})
    first = look(str(tmp_path), PY)
    plant(tmp_path, {where: "b.py\n"})

    second = look(str(tmp_path), PY, known=first.known)
    assert paths(second) == ["a.py"]

    (tmp_path / where).unlink()
    third = look(str(tmp_path), PY, known=second.known)
    assert paths(third) == ["a.py", "lib/b.py", "lib/sub/b.py"]
