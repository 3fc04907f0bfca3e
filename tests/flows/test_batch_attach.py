"""A run that is detached leaves its jobs in AWS Batch, and whoever attaches takes them over."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.faults.batch_adoption import within
from tests.flows.harness import LIMIT_S, Said
from tests.flows.test_batch import Place, place, runtimes

__all__ = ["place", "runtimes"]

FLOW = """
import os, time
from engine import FlowSpec, Parameter, current, step

class Waits(FlowSpec):
    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.next(self.fan, self.here)

    BATCH
    @step
    def fan(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    BATCH
    @step
    def work(self):
        self.wait("there", self.input)
        self.made = self.input * 10
        self.next(self.join)

    BATCH
    @step
    def join(self, inputs):
        self.made = [task.made for task in inputs]
        self.next(self.both)

    @step
    def here(self):
        self.wait("here", 0)
        self.made = [1]
        self.next(self.both)

    @step
    def both(self, inputs):
        self.made = [made for task in inputs for made in task.made]
        self.next(self.end)

    @step
    def end(self):
        print("made", self.made)

    def wait(self, where, number):
        open(f"{self.folder}/{where}-{number}-{os.getpid()}-{current.run_id}", "w").close()
        print("waiting", number, flush=True)
        while not os.path.exists(f"{self.folder}/go"):
            time.sleep(0.05)
"""


def run_until_it_waits(
    place: Place, folder: Path, *words: str, here: int, taken_over: int = 0
) -> Said:
    """Start a command, interrupt it when its tasks wait, and return what it said."""
    err_file = place.folder / "err"
    with (
        err_file.open("w") as err,
        subprocess.Popen(
            [sys.executable, "-P", "-c", "from engine.cli.main import main; main()", *words],
            cwd=place.folder,
            env=os.environ | place.env,
            stdin=subprocess.DEVNULL,
            stdout=err,
            stderr=err,
        ) as process,
    ):

        def waits() -> bool:
            counts = len(list(folder.glob("there-*"))), len(list(folder.glob("here-*")))
            return counts == (4, here) and err_file.read_text().count("taken over") == taken_over

        try:
            within(LIMIT_S, waits)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=LIMIT_S)
        finally:
            process.kill()
    return Said(process.returncode, "", err_file.read_text())


def jobs(place: Place, run: str = "") -> list[str]:
    """The names of the jobs that Batch has, of a run."""
    listed = json.loads(place.done("batch", "list", *([run] if run else []), "--json").out)["jobs"]
    return [f"{job['name']} {job['user']}" for job in listed]


def test_a_detached_run_is_attached_twice_and_no_job_runs_again(place: Place) -> None:
    (place.folder / "waits.py").write_text(
        FLOW.replace("BATCH", "@batch").replace("import FlowSpec", "import FlowSpec, batch")
    )
    folder = place.folder / "seen"
    folder.mkdir()
    words = ("waits.py", "--max-workers", "6", "--folder", str(folder))
    said = run_until_it_waits(place, folder, "run", *words, "--detach", here=1)
    assert said.code == 130, said
    assert "4 tasks left running in AWS Batch; attach with: aflow attach" in said.err, said
    assert "cannot be left, so ended, to be run again: here/" in said.err
    first = said.err.partition("aflow attach ")[2].split()[0]
    assert f"attach with: aflow attach {first}" in place.done("status", first).out
    assert jobs(place, first), "the jobs were ended"

    said = run_until_it_waits(place, folder, "attach", first, "--detach", here=2, taken_over=1)
    assert "4 tasks left running in AWS Batch" in said.err, said
    second = said.err.partition("aflow attach ")[2].split()[0]
    assert second != first
    refused = place.aflow("attach", first)
    assert (refused.code, f"goes on as run Waits/{second}" in refused.err) == (2, True), refused
    assert f"aflow attach {second}" in refused.err
    (folder / "go").touch()
    said = place.done("attach", second)
    assert "made [0, 10, 20, 30, 1]" in said.out or "made [1, 0, 10, 20, 30]" in said.out, said
    assert len(list(folder.glob("there-*"))) == 4, "a job ran twice"
    assert len(list(folder.glob("here-*"))) == 3
    assert not jobs(place, first)
    assert place.aflow("attach", "@latest").code == 2


def test_attach_knows_what_the_run_was_decorated_with(place: Place) -> None:
    """And Ctrl-C without --detach ends the jobs."""
    (place.folder / "waits.py").write_text(FLOW.replace("    BATCH\n", ""))
    folder = place.folder / "seen"
    folder.mkdir()
    words = ("waits.py", "--with", "batch:memory=2G", "--max-workers", "6", "--folder", str(folder))
    # All steps are in Batch here, so both branches are left.
    said = run_until_it_waits(place, folder, "run", *words, "--tag", "mine", "--detach", here=1)
    assert "5 tasks left running in AWS Batch" in said.err, said
    first = said.err.partition("aflow attach ")[2].split()[0]
    said = run_until_it_waits(place, folder, "attach", first, here=1, taken_over=2)
    assert said.code == 130, said
    assert "resume with: aflow resume" in said.err
    listed = json.loads(place.done("list", "Waits", "--json").out)["runs"]
    assert [run["tags"] for run in listed] == [["mine"], ["mine"]]
    assert not jobs(place, first), "Ctrl-C left a job"
    assert len(list(folder.glob("*-*"))) == 5, "a job ran twice"


def test_attach_refuses_what_has_a_driver_or_has_ended(place: Place) -> None:
    source = "from engine import FlowSpec, step\n\nclass Plain(FlowSpec):\n    @step\n"
    source += "    def start(self):\n        self.next(self.end)\n\n    @step\n    def end(self):\n"
    (place.folder / "plain.py").write_text(source + "        pass\n")
    place.done("run", "plain.py")
    said = place.aflow("attach")
    assert said.code == 2
    assert "has ended: it succeeded" in said.err
    assert "aflow resume" in said.err


PACKED = """
import os, time
from engine import FlowSpec, Parameter, batch, step

class Packed(FlowSpec):
    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.work, foreach="items")

    @batch(pack=2)
    @step
    def work(self):
        open(f"{self.folder}/began-{self.input}-{os.getpid()}", "w").close()
        if self.input == 0 and not os.path.exists(f"{self.folder}/mended"):
            raise ValueError("not mended")
        while self.input == 1 and not os.path.exists(f"{self.folder}/go"):
            time.sleep(0.05)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        print("ended")
"""


def test_what_has_failed_in_a_container_that_is_taken_over_is_run_anew(place: Place) -> None:
    (place.folder / "packed.py").write_text(PACKED)
    folder, err_file = place.folder / "seen", place.folder / "err"
    folder.mkdir()
    program = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]
    with err_file.open("w") as err:

        def until(text: str, *words: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                [*program, *words],
                cwd=place.folder,
                env=os.environ | place.env,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
            )
            try:
                within(LIMIT_S, lambda: text in err_file.read_text(), process)
                within(LIMIT_S, lambda: bool(list(folder.glob("began-1-*"))), process)
            except BaseException:
                process.kill()
                raise
            return process

        words = "run", "packed.py", "--folder", str(folder)
        with until("Task failed: ValueError", *words) as first:
            first.kill()
        (folder / "mended").touch()
        with until("taken over", "resume", "packed.py") as second:
            try:
                (folder / "go").touch()
                second.wait(timeout=LIMIT_S)
            finally:
                second.kill()
    assert second.returncode == 0, err_file.read_text()
    began = sorted(path.name.split("-")[1] for path in folder.glob("began-*"))
    assert began == ["0", "0", "1"], "what was still at work is not run again"
