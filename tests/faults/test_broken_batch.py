"""A broken set-up of AWS Batch is told by `aflow doctor batch` and by `aflow run`, with a hint.

All of them by both commands: `python -m tests.faults.broken_batch`, which also resumes what failed.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from engine.cli.main import invoke
from engine.errors import EXIT_CONFIG
from engine.testing.servers import ServerAddress
from tests.faults.bad_inputs import Said
from tests.faults.broken_batch import (
    CASES,
    Broken,
    Servers,
    attempt,
    doctor_words,
    error_of,
    findings,
    met,
    prepare,
    resumed,
)

LATE = [case for case in CASES if case.is_late]
EARLY = [case for case in CASES if not case.is_late]
SAMPLE = ("image is not there", "role may not read the bucket", "SubmitJob denied")


def name_of(case: Broken) -> str:
    return case.name


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def servers(
    batch_emulator: ServerAddress,
    seaweedfs: ServerAddress,
    tmp_path_factory: pytest.TempPathFactory,
) -> Servers:
    prepare(batch_emulator, tmp_path_factory.mktemp("images"))
    return batch_emulator, seaweedfs


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_doctor_finds_what_is_broken_and_says_how_to_mend_it(
    case: Broken, servers: Servers, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    with met(case, servers, tmp_path, cache) as variables, redirect_stdout(out):
        monkeypatch.chdir(tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code = invoke(list(doctor_words(case)))
    told = findings(Said(code, out.getvalue(), ""))
    errors = [f for f in told if f["level"] == "error"]
    if not case.doctor or case.doctor == "a job will tell":  # it is the step, or the container
        assert not errors, errors
        assert code == 0
        assert any(case.doctor in f["found"] for f in told)
        return
    assert code == EXIT_CONFIG
    assert any(case.doctor in f["found"] and case.hint in f["hint"] for f in errors), told
    assert all(f["hint"] for f in errors), errors


@pytest.mark.parametrize("case", EARLY, ids=name_of)
def test_a_run_in_a_broken_set_up_ends_before_it_begins_and_says_why(
    case: Broken, servers: Servers, tmp_path: Path, cache: Path
) -> None:
    said = attempt(case, servers, tmp_path, cache, "run", "broken.py")
    assert said.code == case.exit_code, said.err
    error = error_of(said)
    assert case.says in error, said.err
    assert case.mend in error[error.index("hint:") :]
    assert not (tmp_path / "began").exists()


@pytest.mark.parametrize("case", [c for c in LATE if c.name in SAMPLE], ids=name_of)
def test_a_run_whose_job_cannot_start_says_why_and_goes_on_when_that_is_mended(
    case: Broken, servers: Servers, tmp_path: Path, cache: Path
) -> None:
    said = attempt(case, servers, tmp_path, cache, "run", "broken.py")
    assert said.code == case.exit_code, said.err
    error = error_of(said)
    assert case.says in error, said.err
    assert case.mend in error[error.index("hint:") :]
    done = resumed(servers, tmp_path, cache)
    assert done.code == 0, done.err
    assert (tmp_path / "began").read_text() == "x", "a step that had succeeded ran again"
