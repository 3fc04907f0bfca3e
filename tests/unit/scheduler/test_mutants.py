"""The laws are sharp: each of these faults, planted in the machine's source, breaks one.

A mutant is the source with one piece replaced, run in modules of its own; no file is touched.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from engine.scheduler import gangs, joins, machine, retry
from tests.unit.scheduler import laws, laws_of_gangs, laws_of_trouble
from tests.unit.scheduler.hand import MakeScheduler

SOURCES = {
    module.__name__: module for module in (gangs, joins, retry, machine)
}  # in order of import


@dataclass(frozen=True)
class Mutant:
    fault: str
    module: ModuleType
    old: str
    new: str


MUTANTS = [
    Mutant(
        "a barrier opens one child early",
        joins,
        "return self.arrived == self.total",
        "return self.arrived == self.total - 1",
    ),
    Mutant(
        "join inputs stand in the order of arrival",
        joins,
        "        self.results[index] = result",
        "        self.results[self.arrived] = result",
    ),
    Mutant(
        "the first child is left out",
        joins,
        "    issued: int = 0",
        "    issued: int = 1",
    ),
    Mutant(
        "every arm of a branch is the first",
        joins,
        "self.targets[0 if self.is_foreach else index]",
        "self.targets[0]",
    ),
    Mutant(
        "static branches are in scope",
        joins,
        "(*outer, self.result) if self.is_foreach else outer",
        "(*outer, self.result)",
    ),
    Mutant(
        "the innermost foreach comes first in scope",
        joins,
        "(*outer, self.result)",
        "(self.result, *outer)",
    ),
    Mutant(
        "one task more than slots",
        machine,
        "self._in_flight + slots <= self._slots",
        "self._in_flight + slots <= self._slots + 1",
    ),
    Mutant(
        "a finished task keeps its slot",
        machine,
        "            self._in_flight -= task.slots",
        "            self._in_flight -= to is not State.SUCCEEDED",
    ),
    Mutant(
        "news of an earlier attempt is taken",
        machine,
        " or self.attempt != attempt",
        "",
    ),
    Mutant(
        "a retry of another attempt is begun",
        machine,
        " and task.attempt == event.attempt",
        "",
    ),
    Mutant(
        "one retry too many",
        retry,
        "retryable and attempt < node.retry.times",
        "retryable and attempt <= node.retry.times",
    ),
    Mutant(
        "one retry too few",
        retry,
        "retryable and attempt < node.retry.times",
        "retryable and attempt + 1 < node.retry.times",
    ),
    Mutant(
        "what cannot go away is retried",
        retry,
        "if retryable and attempt",
        "if attempt",
    ),
    Mutant(
        "one fallback too few",
        retry,
        "fallbacks < MAX_FALLBACKS",
        "fallbacks + 1 < MAX_FALLBACKS",
    ),
    Mutant(
        "a fallback without end",
        retry,
        " and fallbacks < MAX_FALLBACKS",
        "",
    ),
    Mutant(
        "the fallback is lost, and user code runs again",
        machine,
        "self.inputs, scope, self.fallback, self.gang)",
        "self.inputs, scope, None, self.gang)",
    ),
    Mutant(
        "a fallback catches the failure of the last fallback",
        machine,
        "self.again.is_fallback and self.fallback is None:",
        "self.again.is_fallback:",
    ),
    Mutant(
        "a failure does not stop the run",
        machine,
        'return [*commands, *self._stop(f"{key} failed: {reason}", cancel=cancel)]',
        "return commands",
    ),
    Mutant(
        "on_failure is not looked at",
        machine,
        'cancel = self._on_failure == "cancel"',
        "cancel = False",
    ),
    Mutant(
        "a failed run waits for its backoffs",
        machine,
        "if t.state is not State.RUNNING]:",
        "if t.state is State.READY]:",
    ),
    Mutant(
        "a failed run goes on with its fan-outs",
        machine,
        "            self._cursors.clear()\n",
        "",
    ),
    Mutant(
        "a failed run follows what still commits",
        machine,
        "        if self._stopped is None:\n            self._follow",
        "        if True:\n            self._follow",
    ),
    Mutant(
        "a failed run still retries",
        machine,
        "task.again is None or self._stopped is not None:",
        "task.again is None:",
    ),
    Mutant(
        "a cancel orders everything again each time",
        machine,
        "if not cancel or self._cancelling:",
        "if not cancel:",
    ),
    Mutant(
        "a lost executor leaves its tasks in flight",
        machine,
        "            self._move(task, State.FAILED)\n        return []",
        "            pass\n        return []",
    ),
    Mutant(
        "new items go before those under way",
        machine,
        "if self._ready:\n            return self._ready.popleft()",
        "if self._ready and not self._cursors:\n            return self._ready.popleft()",
    ),
    Mutant(
        "the outermost fan-out goes first",
        machine,
        "fanout = self._cursors[-1]",
        "fanout = self._cursors[0]",
    ),
    Mutant(
        "an inner join closes the outer level",
        machine,
        "fanout.inputs(), fanout.parent)",
        "fanout.inputs(), fanout)",
    ),
    Mutant(
        "a finished task is kept",
        machine,
        "        elif not LEGAL_MOVES[to]:\n            del self._live[task.key]",
        "",
    ),
    Mutant(
        "a gang passes by who waits for one slot",
        machine,
        "self._has_room(self._ready[0].slots)",
        "self._has_room(1)",
    ),
    Mutant(
        "one task passes by a gang that waits",
        machine,
        " if self._has_room(self._ready[0].slots) else None",
        " if self._has_room(self._ready[0].slots) else self._ready.pop()",
    ),
    Mutant(
        "a gang wider than the slots waits for ever",
        machine,
        " or not self._in_flight",
        "",
    ),
    Mutant(
        "a member that failed leaves its gang alone",
        machine,
        "        if not is_first or self._cancelling:\n            return []",
        "        if True:\n            return []",
    ),
    Mutant(
        "each member that fails has the others end again",
        machine,
        "if not is_first or self._cancelling:",
        "if self._cancelling:",
    ),
    Mutant(
        "a cancel ends those again that their gang has told",
        machine,
        "[t for t in self._live.values() if not t.is_broken]",
        "list(self._live.values())",
    ),
    Mutant(
        "a gang is tried again while members are in flight",
        machine,
        "        if task.end(key, None):\n",
        "        if task.end(key, None) or True:\n",
    ),
    Mutant(
        "each member's failure is a retry of its own",
        machine,
        "if self._stopped is None and not task.is_broken:",
        "if self._stopped is None:",
    ),
    Mutant(
        "a gang goes on without the member that failed",
        machine,
        "        if task.is_broken:\n            return self._end_attempt(task)\n",
        "",
    ),
    Mutant(
        "a gang goes on before all have ended",
        machine,
        "        if not task.end(event.task, event.result):\n",
        "        if task.end(event.task, event.result) is None:\n",
    ),
    Mutant(
        "a member may end twice",
        machine,
        "key.frames[-1].index in self.roll.missing",
        "True",
    ),
    Mutant(
        "a gang's first task stands for all at the join",
        machine,
        "(result,) if task.roll is None else task.roll.refs()",
        "(result,) * (task.gang or 1)",
    ),
    Mutant(
        "a foreach of nothing is let through",
        machine,
        "    if width < 1:",
        "    if width < 0:",
    ),
]


def planted(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> MakeScheduler:
    """Load the machine's modules afresh with the fault in; later imports find the earlier ones."""
    for name, module in SOURCES.items():
        source = Path(str(module.__file__)).read_text()
        if module is mutant.module:
            assert source.count(mutant.old) == 1, f"{mutant.fault}: the source has changed"
            source = source.replace(mutant.old, mutant.new)
        fresh = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, fresh)
        exec(compile(source, f"<{mutant.fault}>", "exec"), vars(fresh))
    make: MakeScheduler = sys.modules[machine.__name__].Scheduler
    return make


def broken_laws(make: MakeScheduler) -> list[str]:
    broken = []
    for law in laws.LAWS + laws_of_trouble.LAWS + laws_of_gangs.LAWS:
        try:
            law(make)
        except Exception:  # noqa: BLE001 - a mutant may break in any way
            broken.append(law.__name__)
    return broken


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_planted_fault_breaks_a_law(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken_laws(planted(mutant, monkeypatch))


def test_the_source_as_it_is_breaks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Mutant("nothing", retry, "MAX_FALLBACKS = 3", "MAX_FALLBACKS = 3")
    assert broken_laws(planted(nothing, monkeypatch)) == []
