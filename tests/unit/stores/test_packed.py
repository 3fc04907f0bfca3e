"""Packed lists, and the values that cross the process boundary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Failure, StoreError
from engine.ids import Frame
from engine.stores.packed import PackedList, pack_list
from engine.stores.taskspec import InputRef, Report, TaskSpec


@given(st.lists(st.binary(max_size=30), max_size=30))
def test_each_item_is_read_alone(items: list[bytes]) -> None:
    packed = PackedList(pack_list(items))
    assert len(packed) == len(items)
    assert list(packed) == items
    assert [packed[n] for n in range(len(items))] == items
    assert [packed[-n - 1] for n in range(len(items))] == items[::-1]
    for beyond in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            packed[beyond]


@pytest.mark.parametrize("data", [b"", b"AFL1", b"AFL1\x01\0\0\0", b"AFL2" + bytes(12), bytes(99)])
def test_what_is_no_packed_list_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="packed list"):
        PackedList(data)


names = st.text(max_size=10)


@given(
    st.builds(
        TaskSpec,
        flow=names,
        run_id=names,
        step=names,
        task_id=names,
        attempt=st.integers(0, 9),
        datastore=names,
        frames=st.lists(
            st.builds(Frame, names, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
        ).map(tuple),
        parameters=st.binary(),
        inputs=st.lists(st.builds(InputRef, names, names, st.binary())),
        items=st.lists(st.binary()),
        items_whole=st.lists(st.booleans()),
        tags=st.lists(names).map(tuple),
        environment=st.dictionaries(names, names),
    )
)
def test_a_task_reaches_its_worker_unchanged(spec: TaskSpec) -> None:
    assert TaskSpec.unpack(spec.pack()) == spec


@given(
    st.builds(
        Report,
        st.none() | st.binary(),
        st.none() | names,
        st.none() | st.builds(Failure, names, names, log_tail=st.lists(names).map(tuple)),
    )
)
def test_a_report_reaches_the_driver_unchanged(report: Report) -> None:
    assert Report.unpack(report.pack()) == report
