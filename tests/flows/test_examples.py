"""The examples do what they say, on the data that scikit-learn ships."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine import Flow
from tests.flows.harness import ROOT, aflow

EXAMPLES = ROOT / "examples"
pytestmark = [pytest.mark.usefixtures("datastore"), pytest.mark.slow]


def test_hello_greets_whom_it_is_told(tmp_path: Path) -> None:
    said = aflow("run", str(EXAMPLES / "hello.py"), "--name", "Ada", cwd=tmp_path)
    assert said.code == 0, said
    assert "Hello, Ada!" in said.out


def test_digits_finds_a_good_model_and_keeps_it(tmp_path: Path) -> None:
    said = aflow("run", str(EXAMPLES / "digits.py"), "--max-workers", "64", cwd=tmp_path)
    assert said.code == 0, said
    assert "best model: SVC(" in said.out
    printed = re.search(r"score on 450 held-out images: ([\d.]+)", said.out)
    assert printed is not None
    assert float(printed[1]) > 0.97

    run = Flow("Digits").latest_run
    assert run is not None
    assert len(list(run["score"])) == 20
    data = run.data
    assert data.best_setting == {"C": 10, "gamma": 0.003}
    assert [mean for _, mean, _ in data.ranking] == sorted(
        (task.data.mean for task in run["score"]), reverse=True
    )
    right = np.mean(data.model.predict(data.held_out_images) == data.held_out_labels)
    assert float(f"{right:.4f}") == float(printed[1])


def test_wine_runs_inside_an_async_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "wine_async.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].strip() == "RunBegan"
    assert len(re.findall(r"Wine/\w+: depth \d tells [89]\d\.\d% of the wines", done.stdout)) == 3
