"""Runs that write, commit, end and are deleted in any order, with collections in between.

Whatever happens, a blob that a run has committed, or has put and may yet commit, is there; and when
all runs have ended, a collection leaves exactly what the journals refer to.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.stores.gc import RunName, collect, survey
from engine.stores.layout import create_layout
from engine.stores.manifest import Entry
from tests.unit.stores.written import WrittenRun, big, digests, request, stored

VALUES = st.integers(0, 4)


class Collecting(RuleBasedStateMachine):
    """`_ended` and `_alive` hold what each run may refer to."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp())
        self._layout = create_layout(self._folder / "store")
        self._count = 0
        self._alive: dict[WrittenRun, set[str]] = {}
        self._put: dict[WrittenRun, dict[str, Entry]] = {}
        self._ended: dict[RunName, set[str]] = {}

    @rule(flow=st.sampled_from("FG"))
    def begin(self, flow: str) -> None:
        self._count += 1
        run = WrittenRun(self._layout, f"R{self._count}", flow=flow)
        self._alive[run], self._put[run] = set(), {}

    @precondition(lambda self: self._alive)
    @rule(data=st.data(), value=VALUES)
    def put(self, data: st.DataObject, value: int) -> None:
        run = data.draw(st.sampled_from(list(self._alive)))
        self._put[run] |= run.write({f"v{value}": big(value)})

    @precondition(lambda self: self._alive)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(list(self._alive)))
        entries, self._put[run] = self._put[run], {}
        run.commit(entries)
        self._alive[run] |= digests(entries)

    @precondition(lambda self: self._alive)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(list(self._alive)))
        del self._put[run]
        self._ended[run.end()] = self._alive.pop(run)

    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        ended = sorted(self._ended)
        going = data.draw(st.lists(st.sampled_from(ended), unique=True)) if ended else []
        done = collect(self._layout, request(*going))
        for run in going:
            del self._ended[run]
        assert done.is_complete == (not self._alive)
        if done.is_complete:
            assert stored(self._layout) == set().union(*self._ended.values())

    @invariant()
    def nothing_needed_is_lost(self) -> None:
        needed: set[str] = set().union(*self._ended.values(), *self._alive.values())
        for entries in self._put.values():
            needed |= digests(entries)
        assert needed <= stored(self._layout)
        assert survey(self._layout).runs == {*self._ended, *(run.name for run in self._alive)}

    def teardown(self) -> None:
        for run in self._alive:
            run.end()
        shutil.rmtree(self._folder)


def test_r24_collections_between_runs_that_write_and_end_in_any_order_lose_nothing() -> None:
    run_state_machine_as_test(
        Collecting, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
