"""Bugs planted in the driver, and the simulation that has to find them.

`python -m tests.sim.mutants [--seeds 1000]` plays each bug until a seed finds it, and then that
seed again. A mutant is the source of the driver's modules with pieces replaced, run in modules of
its own; no file is touched. Exit code 1 if a bug was not found, or not found again by its seed.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from engine.stores.frames import HEAD_BYTES, MAGIC_BYTES
from tests.sim.cast import AS_SHIPPED, AnyJournal, Cast
from tests.sim.simulation import simulate

MODULES = ("flights", "ledger", "jobs", "memo", "driver")  # in order of import


class WriteBehind:
    """A journal that answers before it has written: at the next turn it does. That is the bug."""

    def __init__(self, journal: AnyJournal) -> None:
        self._journal = journal
        self._ahead: dict[int, bytes] = {}
        self._end = MAGIC_BYTES

    def append(self, payload: bytes) -> int:
        at, self._end = self._end, self._end + HEAD_BYTES + len(payload)
        self._ahead[at] = payload
        asyncio.get_running_loop().call_soon(self._write, at)
        return at

    def read(self, offset: int) -> bytes:
        return self._ahead.get(offset) or self._journal.read(offset)

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        return self._journal.scan(start)

    def _write(self, at: int) -> None:
        self._journal.append(self._ahead.pop(at))


@dataclass(frozen=True)
class Edit:
    """In `module`, `old` becomes `new`; `old` is there once."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    fault: str
    edits: tuple[Edit, ...] = ()
    journal: Callable[[AnyJournal], AnyJournal] = AS_SHIPPED.journal


def mutant(fault: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(fault, tuple(Edit(*edit) for edit in edits))


_JOURNALS_FAILURE = (
    "        self._ledger.record(FailedRecord(self._ledger.now_us(), task, attempt, *times, "
    "failure))\n"
)
_PAST = (  # jobs that have ended are still known
    "flights",
    "        flight = self._flights.pop(ended.name, None)\n",
    "        past = vars(self).setdefault('_past', {})\n"
    "        flight = self._flights.pop(ended.name, None) or past.get(ended.name)\n"
    "        past[ended.name] = flight\n",
)

MUTANTS = (
    Mutant("a commit is acted on before it is journaled", journal=WriteBehind),
    mutant(
        "a failed attempt is tried again before its failure is journaled",
        (
            "driver",
            _JOURNALS_FAILURE,
            "        record = FailedRecord(self._ledger.now_us(), task, attempt, *times, failure)\n"
            "        asyncio.get_running_loop().call_later(0.5, self._ledger.record, record)\n",
        ),
    ),
    mutant(
        "watchers hear of a failure before the journal",
        (
            "driver",
            _JOURNALS_FAILURE,
            "        self._ledger.emit(TaskAttemptFailed(task, attempt, *times, failure, None))\n"
            + _JOURNALS_FAILURE,
        ),
    ),
    mutant(
        "the late end of an older attempt is committed",
        _PAST,
        (
            "driver",
            "if not self._scheduler.awaits(ended.task, ended.attempt):",
            "if ended.task not in self._scheduler._live:",
        ),
    ),
    mutant(
        "a second end of an attempt is committed",
        _PAST,
        (
            "driver",
            "if not self._scheduler.awaits(ended.task, ended.attempt):",
            "if False:",
        ),
    ),
    mutant(
        "a reused result is forgotten",
        ("driver", "                    return reused\n", "                    return []\n"),
    ),
    mutant(
        "a reused result is told to be new work",
        ("driver", "*times, manifest, reused)", "*times, manifest, False)"),
    ),
    mutant(
        "what the run before the last one did is forgotten",
        (
            "memo",
            "self._read(chain([journal], older))",
            "self._read([journal])",
        ),
    ),
    mutant(
        "the end of a cancelled task is lost",
        (
            "flights",
            "        flight = self._flights.pop(ended.name, None)\n        if flight is None:\n",
            "        flight = self._flights.pop(ended.name, None)\n"
            "        if flight is None or ended.exit.kind == 'cancelled':\n",
        ),
    ),
    mutant(
        "a cancel is not journaled",
        (
            "driver",
            "self._ledger.record(CancelRequestedRecord(self._ledger.now_us(), news.reason))",
            "pass",
        ),
    ),
    mutant(
        "a cancelled run says that it failed",
        ("driver", "self._is_interrupted = True", "self._is_interrupted = False"),
    ),
    mutant(
        "the result of another task is committed",
        (
            "driver",
            "if not is_mine or not (ended.reused or _is_of_run(head, ended, parts)):",
            "if False:",
        ),
    ),
    mutant(
        "a job that cannot be made is forgotten",
        (
            "driver",
            "news += [Ended(task, launch.attempt, now_us, now_us, failure) for task in tasks]",
            "pass",
        ),
    ),
    mutant(
        "a gang commits one by one",
        ("driver", "for each in self._musters.take(ended) for", "for each in (ended,) for"),
    ),
    mutant(
        "a part of a gang is reused",
        ("memo", "if len(tasks) < tasks[0].frames[-1].total:", "if False:"),
        (
            "driver",
            "                return ()\n            at = task",
            "                continue\n            at = task",
        ),
    ),
    mutant(
        "a manifest that cannot be read ends the run",
        (
            "flights",
            "            except StoreError as error:\n                outcome",
            "            except KeyError as error:\n                outcome",
        ),
    ),
    mutant(
        "an executor that falls over is not missed",
        ("driver", "self._inbox.put_nowait([lost])", "pass"),
    ),
    mutant(
        "a submit that is refused is not missed",
        ("driver", "return [*news, _lost(error)]", "return news"),
    ),
    mutant(
        "the jobs of a broken run go on",
        (
            "driver",
            "await self._parts.executor.cancel(self._flights.names(), reason=reason)",
            "return self._outcome('failed', reason)",
        ),
    ),
    mutant(
        "news that came together with other news is lost",
        ("driver", "news += self._inbox.get_nowait()", "news = list(self._inbox.get_nowait())"),
    ),
    mutant(
        "news left over by a full batch is lost",
        (
            "driver",
            "            if not todo and self._done is None:",
            "            if self._done is None:",
        ),
        ("driver", "                orders = _Orders()\n", "                todo.clear()\n"),
    ),
    mutant(
        "the end of a run is told and not journaled",
        ("driver", "self._ledger.record(done_record(done, self._parts.seal()))", "pass"),
    ),
    mutant(
        "a broken run has no end",
        (
            "driver",
            '        self._done = self._outcome("failed", reason)\n        '
            "self._ledger.close_anyhow(self._done)\n",
            '        self._done = self._outcome("failed", reason)\n',
        ),
    ),
    mutant(
        "a run without a beginning gets an end",
        ("ledger", "if self._has_begun:", "if True:"),
    ),
    mutant(
        "an attempt ends before it began",
        ("flights", "max(ended.started_us, ended.ended_us)", "ended.ended_us"),
    ),
    mutant(
        "a cancel reaches one task alone",
        (
            "driver",
            "orders.cancels.setdefault(reason, []).append(self._parts.jobs.name(task, attempt))",
            "orders.cancels[reason] = [self._parts.jobs.name(task, attempt)]",
        ),
    ),
    mutant(
        "the items of one foreach are given to the next",
        (
            "jobs",
            "item = found.each[frame.index] if found.each is not None else None",
            "item = found.each[0] if found.each is not None else None",
        ),
    ),
    mutant(
        "the inputs of one join are given to another",
        (
            "jobs",
            "digest = self._bundles.get(refs[0]) if len(refs) == 1 else None",
            "digest = next(iter(self._bundles.values()), None)",
        ),
        ("jobs", "        if len(refs) == 1:  # the siblings", "        if True:  # the siblings"),
    ),
)


@contextmanager
def planted(bug: Mutant) -> Iterator[Cast]:
    """The driver's modules with a bug in them, made afresh; each imports those made before it.

    Raises:
        ValueError: the source has changed, and the bug has no place in it.
    """
    shipped = {name: sys.modules[f"engine.scheduler.{name}"] for name in MODULES}
    fresh: dict[str, ModuleType] = {}
    try:
        for name, module in shipped.items():
            fresh[name] = ModuleType(module.__name__)
            sys.modules[module.__name__] = fresh[name]
            code = compile(_source(module, bug), f"<{bug.fault}>", "exec")
            exec(code, vars(fresh[name]))
    finally:
        sys.modules.update({module.__name__: module for module in shipped.values()})
    yield Cast(**fresh, journal=bug.journal)


def _source(module: ModuleType, bug: Mutant) -> str:
    source = Path(str(module.__file__)).read_text()
    for edit in bug.edits:
        if module.__name__ == f"engine.scheduler.{edit.module}":
            if source.count(edit.old) != 1:
                raise ValueError(f"{bug.fault}: {edit.module} has changed: {edit.old!r}")
            source = source.replace(edit.old, edit.new)
    return source


def problem(seed: int, cast: Cast) -> str | None:
    """What is wrong with a seed; None if nothing is."""
    try:
        simulate(seed, cast)
    except Exception as error:  # noqa: BLE001 - a mutant may break in any way
        return f"{type(error).__name__}: {error}"
    return None


@dataclass(frozen=True)
class Found:
    seed: int
    problem: str
    is_replayed: bool  # the same seed, played again, shows the same


def find(bug: Mutant, seeds: range) -> Found | None:
    """Play seeds until one finds the bug."""
    with planted(bug) as cast:
        for seed in seeds:
            if what := problem(seed, cast):
                return Found(seed, what, is_replayed=problem(seed, cast) == what)
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="at most, for each bug")
    parser.add_argument("--start", type=int, default=0, help="the first")
    options = parser.parse_args(arguments)
    missed = 0
    for bug in MUTANTS:
        found = find(bug, range(options.start, options.start + options.seeds))
        if found is None or not found.is_replayed:
            missed += 1
        said = f"seed {found.seed}: {found.problem[:150]}" if found else "NOT FOUND"
        again = "" if found is None or found.is_replayed else " NOT REPLAYED"
        sys.stdout.write(f"{bug.fault}\n    {said}{again}\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"{len(MUTANTS)} bugs planted, {missed} not found within {options.seeds:,} seeds\n"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
