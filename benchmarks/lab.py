"""Runs commands and weighs them: wall time, CPU, peak memory; ours, Metaflow's and the floors'.

Every run of a flow gets a datastore of its own on the disk that the repository is on, thrown away
after it. The same flow files run on both sides: only the line that imports FlowSpec is switched.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOWS = Path(__file__).parent / "flows"
DEADLINE_S = 1800.0
_MEMORY_SAMPLE_S = 0.02


@dataclass(frozen=True)
class Measured:
    """One command. `values` are the figures of the line `BENCH ...` that the flow printed.

    `peak_bytes` is the largest process of the tree, `driver_bytes` the one that was started.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    driver_bytes: int
    values: tuple[float, ...]
    output: str = field(repr=False)


class BenchError(Exception):
    """A measured command failed: there is no figure, so there is no report either."""


def run(command: Sequence[str | Path], *, cwd: Path, env: dict[str, str]) -> Measured:
    """Run a command to its end.

    Raises:
        BenchError: it failed, or took longer than DEADLINE_S.
    """
    log = cwd / "output.txt"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        timer = threading.Timer(DEADLINE_S, process.kill)
        timer.start()
        watcher = _MemoryWatcher(process.pid)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        watcher.join()
    text = log.read_text(errors="replace")
    if process.returncode != 0:
        raise BenchError(f"{command} exited with {process.returncode}:\n{text[-3000:]}")
    return Measured(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        driver_bytes=watcher.peak_bytes,
        values=_values(text),
        output=text,
    )


def _values(text: str) -> tuple[float, ...]:
    for line in text.splitlines():
        _, mark, figures = line.partition("BENCH ")
        if mark:
            return tuple(float(word) for word in figures.split())
    return ()


class _MemoryWatcher(threading.Thread):
    """Reads the peak memory of one process, and of no other of its tree, until it is gone."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.peak_bytes = 0

    def run(self) -> None:
        while True:
            try:
                lines = self._status.read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                return
            peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
            if not peaks:
                return  # it has ended and waits to be reaped
            self.peak_bytes = max(self.peak_bytes, int(peaks[0]) * 1024)
            time.sleep(_MEMORY_SAMPLE_S)


@dataclass(frozen=True)
class Lab:
    """Where workloads run. `is_quick` asks for sizes that show only that everything works."""

    folder: Path
    is_quick: bool = False

    def aflow(self, flow: str, *words: str, source: str | None = None) -> Measured:
        """Run a flow of benchmarks/flows as a user would: through bin/aflow."""
        return self.aflow_then(None, flow, *words, source=source)[0]

    def aflow_then(
        self, script: Path | None, flow: str, *words: str, source: str | None = None
    ) -> tuple[Measured, Measured | None]:
        """The same, then a script that reads what the run left, in a Python that has aflow."""
        with self.scratch() as (cwd, env):
            path = _place(cwd, flow, source or _source(flow))
            measured = run([ROOT / "bin" / "aflow", "run", path, *words], cwd=cwd, env=env)
            if script is None:
                return measured, None
            return measured, run([sys.executable, script], cwd=cwd, env=env)

    def metaflow(self, flow: str, *words: str, source: str | None = None) -> Measured:
        """Run the same flow's text with Metaflow."""
        return self.metaflow_then(None, flow, *words, source=source)[0]

    def metaflow_then(
        self, script: Path | None, flow: str, *words: str, source: str | None = None
    ) -> tuple[Measured, Measured | None]:
        with self.scratch() as (cwd, env):
            python = self.metaflow_python
            path = _place(cwd, flow, _for_metaflow(source or _source(flow)))
            measured = run([python, path, "--no-pylint", "run", *words], cwd=cwd, env=env)
            if script is None:
                return measured, None
            twin = _place(cwd, script.stem, _for_metaflow(script.read_text()))
            return measured, run([python, twin], cwd=cwd, env=env)

    def command(self, *words: str | Path) -> Measured:
        with self.scratch() as (cwd, env):
            return run(words, cwd=cwd, env=env)

    def floor(self, name: str, *words: str) -> float:
        """Run a floor of benchmarks/floors.py in a process of its own; its figure is seconds."""
        with self.scratch() as (cwd, env):
            env["PYTHONPATH"] = str(ROOT)
            command = [sys.executable, "-m", "benchmarks.floors", name, *words]
            return run(command, cwd=cwd, env=env).values[0]

    @cached_property
    def start_up_s(self) -> tuple[float, float]:
        """Wall times of a run of two trivial steps, ours and Metaflow's: what every run pays."""
        times = 2 if self.is_quick else 7
        ours = statistics.median(self.aflow("hello").wall_s for _ in range(times))
        theirs = statistics.median(self.metaflow("hello").wall_s for _ in range(3))
        return ours, theirs

    @cached_property
    def task_modules(self) -> str:
        """The modules that a task's process holds, as JSON: what the fork floor imports too."""
        marker = "MODULES "
        source = _source("hello").replace(
            "class Hello(FlowSpec):\n",
            "def modules():\n    import json, sys\n    return json.dumps(sorted(sys.modules))\n\n\n"
            "class Hello(FlowSpec):\n",
        )
        source = source.replace(
            'print("BENCH"', f'print("{marker}" + modules())\n        print("BENCH"'
        )
        output = self.aflow("hello", source=source).output
        listed = json.loads(output.partition(marker)[2].partition("]")[0] + "]")
        return json.dumps([m for m in listed if m.partition(".")[0] in _importable()])

    @cached_property
    def metaflow_python(self) -> Path:
        """The interpreter of an environment of Metaflow's own, made on first use."""
        return environment_of("metaflow", "metaflow", "numpy") / "python"

    @cached_property
    def metaflow_version(self) -> str:
        asking = "import metaflow; print(metaflow.__version__)"
        return subprocess.check_output([self.metaflow_python, "-c", asking], text=True).strip()

    @contextmanager
    def scratch(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """A directory and an environment that hold nothing of earlier runs nor of the user."""
        cwd = self.folder / "scratch"
        shutil.rmtree(cwd, ignore_errors=True)
        cwd.mkdir(parents=True)
        prefixes = ("AFLOW_", "METAFLOW_", "AWS_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env |= {
            "AFLOW_DATASTORE": str(cwd / "store"),
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(cwd / "store"),
            "METAFLOW_USER": "bench",
            "XDG_CONFIG_HOME": str(cwd / "config"),
            "HOME": str(cwd),
        }
        try:
            yield cwd, env
        finally:
            shutil.rmtree(cwd, ignore_errors=True)


def environment_of(name: str, *packages: str) -> Path:
    """The bin directory of an environment that has `packages`; made on first use."""
    place = ROOT / ".cache" / name
    if not (place / "stamp").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        python = str(place / "bin" / "python")
        command = [python, "-m", "pip", "install", "-q", "--compile", *packages]
        subprocess.run(command, check=True)
        (place / "stamp").touch()
    return place / "bin"


def _importable() -> set[str]:
    return {*sys.stdlib_module_names, "blake3", "click", "msgpack", "engine", "zstandard"}


def _for_metaflow(source: str) -> str:
    return source.replace("from engine import", "from metaflow import")


def _source(flow: str) -> str:
    return (FLOWS / f"{flow}.py").read_text()


def _place(cwd: Path, flow: str, source: str) -> Path:
    path = cwd / f"{flow}.py"
    path.write_text(source)
    return path
