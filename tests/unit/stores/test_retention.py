"""Which runs may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stores.metadata.base import RunRecord
from engine.stores.retention import Rules, chosen

RUNS = st.lists(
    st.builds(
        lambda flow, began, took, tags: RunRecord(
            flow=flow,
            run_id=f"R{began}",
            status="succeeded",
            created_us=began,
            ended_us=None if took is None else began + took,
            tags=tuple(tags),
        ),
        st.sampled_from("FG"),
        st.integers(0, 50),
        st.none() | st.integers(0, 50),
        st.sets(st.sampled_from("abc")),
    ),
    max_size=12,
    unique_by=lambda run: (run.flow, run.run_id),
).map(lambda runs: sorted(runs, key=lambda run: -run.created_us))

RULES = st.builds(
    Rules,
    keep_last=st.none() | st.integers(0, 4),
    ended_before_us=st.none() | st.integers(0, 80),
    keep_tags=st.sets(st.sampled_from("abc")),
)


def run(number: int, *, flow: str = "F", tags: tuple[str, ...] = ()) -> RunRecord:
    return RunRecord(flow, f"R{number}", "succeeded", number, ended_us=number + 5, tags=tags)


@pytest.mark.parametrize(
    ("rules", "going"),
    [
        (Rules(), []),
        (Rules(keep_tags=("t",)), []),
        (Rules(keep_last=2), ["R2", "R1"]),
        (Rules(keep_last=0), ["R4", "R3", "R2", "R1"]),
        (Rules(ended_before_us=8), ["R2", "R1"]),
        (Rules(keep_last=1, ended_before_us=8), ["R2", "R1"]),
        (Rules(keep_last=3, ended_before_us=8), ["R1"]),
        (Rules(keep_last=0, keep_tags=("t", "u")), ["R3", "R2", "R1"]),
    ],
)
def test_a_run_goes_if_every_rule_lets_it_go(rules: Rules, going: list[str]) -> None:
    runs = [run(4, tags=("t",)), run(3), run(2), run(1)]
    assert [found.run_id for found in chosen(runs, rules)] == going


def test_the_last_runs_are_those_of_each_flow() -> None:
    runs = [run(4), run(3), run(2, flow="G"), run(1, flow="G")]
    assert [found.run_id for found in chosen(runs, Rules(keep_last=1))] == ["R3", "R1"]


@given(RUNS, RULES)
def test_what_goes_is_what_no_rule_keeps(runs: list[RunRecord], rules: Rules) -> None:
    going = list(chosen(runs, rules))
    staying = [found for found in runs if found not in going]
    assert [found for found in runs if found in going] == going
    assert not any(set(found.tags) & set(rules.keep_tags) for found in going)
    if rules.keep_last is not None:
        for flow in "FG":
            theirs = [found for found in runs if found.flow == flow]
            assert all(found in staying for found in theirs[: rules.keep_last])
    if rules.ended_before_us is not None:
        for found in going:
            ended = found.created_us if found.ended_us is None else found.ended_us
            assert ended < rules.ended_before_us
    if rules == Rules(keep_tags=rules.keep_tags):
        assert going == []
