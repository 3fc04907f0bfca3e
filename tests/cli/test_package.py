"""`aflow package`: the code of a flow and of a run, as people and programs see it."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from engine.cli import times
from engine.package.bundle import SIZE_MAX
from tests.cli.conftest import Call
from tests.cli.flows import HELLO
from tests.unit.client.stored import succeeded
from tests.unit.package.trees import plant

FILES = {"hello.py": HELLO, "lib/words.py": "x = 1\n", "data.csv": "1,2\n"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return plant(tmp_path / "project", FILES)


def test_the_package_of_a_flow_is_listed(aflow: Call, project: Path) -> None:
    assert aflow("package", "list", project / "hello.py").lines == ["hello.py", "lib/words.py"]
    assert aflow("package", "list", project / "hello.py", "--package-suffixes", ".csv").lines == [
        "data.csv",
        "hello.py",
    ]


def test_the_package_of_a_flow_is_described(aflow: Call, project: Path) -> None:
    (project / "out.py").symlink_to("/etc/hosts")
    size = len(HELLO.encode())

    done = aflow("package", "info", project / "hello.py")

    assert (done.code, done.err) == (0, "")
    assert done.lines[:3] == [
        f"HelloFlow in {project}",
        "  script    hello.py",
        f"  files     2, {times.size(size + 6)}",
    ]
    assert done.lines[-4:] == [
        "  suffixes  .R,.RDS,.py",
        f"  largest   hello.py, {times.size(size)}",
        "  largest   lib/words.py, 6 B",
        "  left out  out.py: leads out of the directory, to /etc/hosts",
    ]


def test_a_program_gets_the_same_as_json(aflow: Call, project: Path) -> None:
    flow = project / "hello.py"

    info = json.loads(aflow("package", "info", flow, "--json").out)
    files = json.loads(aflow("package", "list", flow, "--json").out)

    content = len(HELLO.encode()) + 6
    assert info == {
        "schema": "aflow/package/1",
        "flow": "HelloFlow",
        "run": None,
        "root": str(project),
        "script": "hello.py",
        "digest": info["digest"],
        "package_bytes": 3584,
        "suffixes": [".R", ".RDS", ".py"],
        "files": 2,
        "content_bytes": content,
        "left_out": {},
    }
    assert (files["schema"], files["digest"]) == ("aflow/package-files/1", info["digest"])
    assert files["files"] == [
        {"path": "hello.py", "size_bytes": content - 6},
        {"path": "lib/words.py", "size_bytes": 6},
    ]


def test_the_package_of_a_run_is_the_one_of_its_flow_then(
    aflow: Call, process: Call, project: Path
) -> None:
    before = json.loads(aflow("package", "info", project / "hello.py", "--json").out)
    assert process("run", project / "hello.py", "-q").code == 0
    plant(project, {"lib/words.py": "x = 2\n"})

    info = json.loads(aflow("package", "info", "@latest", "--json").out)

    assert info["digest"] == before["digest"]
    assert (info["flow"], info["root"]) == ("HelloFlow", None)
    assert aflow("package", "list").lines == ["hello.py", "lib/words.py"]
    assert aflow("package", "list", f"{info['run']}").lines == ["hello.py", "lib/words.py"]


@pytest.mark.parametrize("name", ["code.tar", "code.tgz", "code.tar.gz"])
def test_a_package_is_saved_as_a_tar(aflow: Call, project: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name

    done = aflow("package", "save", project / "hello.py", file)

    assert done.code == 0
    assert done.out.startswith(f"{file}: 2 files, ")
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["hello.py", "lib/words.py"]
    first = file.read_bytes()
    saved = json.loads(aflow("package", "save", project / "hello.py", file, "--json").out)
    assert file.read_bytes() == first
    assert (saved["file"], saved["size_bytes"]) == (str(file), len(first))
    assert sorted(p.name for p in tmp_path.glob("code*")) == [name]


def test_a_flow_s_own_file_packages_itself(process: Call, project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "hello.py", "package", "list"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout.splitlines()) == (0, ["hello.py", "lib/words.py"])


def test_a_warning_is_given_above_50_mb(aflow: Call, project: Path) -> None:
    with (project / "big.py").open("wb") as file:
        file.truncate(SIZE_MAX)

    done = aflow("package", "list", project / "hello.py")

    assert (done.code, done.lines[0]) == (0, "big.py")
    assert done.err == (
        "warning: 47.7 MiB of code is more than a run packages (50 MB): name what is no code in "
        ".aflowignore\n"
    )


def test_a_run_that_packages_nothing_says_why(process: Call, project: Path) -> None:
    with (project / "big.py").open("wb") as file:
        file.truncate(SIZE_MAX)

    run = process("run", project / "hello.py")
    told = process("package", "info")

    assert run.code == 0
    assert "the code was not packaged: " in run.err
    assert told.code == 5
    assert "holds 50 MB of code in 3 files; up to 50 MB are packaged" in told.err


def test_a_run_without_a_package_is_not_found(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    done = aflow("package", "info", "R1")

    assert (done.code, done.out) == (5, "")
    assert done.err == (
        "error[not-found]: run Fan/R1 has no code package: it was made by an aflow that packaged "
        "no code\n"
    )


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["lst"], 2, "there is no action 'lst'"),
        (["save"], 2, "no file is named"),
        (["list", "a.py", "b"], 2, "'b' is one word too many"),
        (["list", "nowhere.py"], 5, "there is no file 'nowhere.py'"),
        (["list", "R9"], 5, "there is no run 'R9'"),
        (["list", "hello.py", "--package-suffixes", "none"], 3, "package_suffixes is none"),
        (["list", "hello.py", "--package-suffixes", ","], 3, "is not a list of texts"),
    ],
)
def test_what_does_not_fit_is_told(
    aflow: Call, datastore: Path, args: list[str], code: int, told: str
) -> None:
    succeeded(datastore, "R1")
    plant(Path.cwd(), FILES)

    done = aflow("package", *args)

    assert (done.code, done.out) == (code, "")
    assert told in done.err


def test_no_terminal_is_fooled_by_a_file_s_name(aflow: Call, project: Path) -> None:
    plant(project, {"a\x1b[2Jb.py": ""})

    assert "\x1b" not in aflow("package", "list", project / "hello.py").out
