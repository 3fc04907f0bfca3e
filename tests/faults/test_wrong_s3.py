"""R-06: wrong settings of S3 end a run before its first task does, and a list; each with its hint.

That it takes seconds is not asserted here: what trying again cannot mend takes one request, and the
patience with an endpoint where nothing answers is tested in virtual time (test_s3.py, test_pacing).
"""

import io
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from engine.cli.main import invoke
from engine.testing.servers import ServerAddress
from tests.faults.wrong_s3 import CASES, SAMPLE, Wrong, attempt, met


def name_of(case: Wrong) -> str:
    return case.name


@pytest.mark.parametrize("case", [c for c in CASES if c.name in SAMPLE], ids=name_of)
def test_r06_a_run_with_wrong_settings_of_s3_ends_at_once_and_says_why(
    case: Wrong, tmp_path: Path, seaweedfs: ServerAddress
) -> None:
    said = attempt(case, seaweedfs, tmp_path, "run", "naps.py")
    assert said.code == case.exit_code, said.err
    error = said.err[said.err.index("error[") :]
    assert case.says in error
    assert case.hint in error[error.index("hint:") :]
    assert "finished" not in said.err
    if "Task was ended" in said.err:
        assert "cancelled: the datastore failed" in said.err


@pytest.mark.parametrize("case", [c for c in CASES if not c.readable], ids=name_of)
def test_r06_a_list_with_wrong_settings_of_s3_says_why(
    case: Wrong, tmp_path: Path, seaweedfs: ServerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with met(case, seaweedfs, tmp_path) as variables, redirect_stderr(io.StringIO()) as err:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code = invoke(["list"])
    assert code == case.exit_code
    assert case.says in err.getvalue()
    assert case.hint in err.getvalue()
