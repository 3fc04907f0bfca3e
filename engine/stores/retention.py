"""Which runs may go: the rules of `aflow gc`. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from engine.stores.metadata.base import RunRecord


class Rules(Struct, frozen=True):
    """A run goes if every rule that is set lets it go; without a rule none goes.

    `keep_last` keeps so many of each flow, the latest begun; `ended_before_us` keeps what ended
    since (what never ended is as old as its beginning). `keep_tags` keeps runs with any of these
    tags, and lets none go by itself.
    """

    keep_last: int | None = None
    ended_before_us: int | None = None
    keep_tags: Collection[str] = ()


def chosen(runs: Iterable[RunRecord], rules: Rules) -> Iterator[RunRecord]:
    """Yield the runs that may go.

    Args:
        runs: newest first; of any flows.
        rules: what to keep.
    """
    if rules.keep_last is None and rules.ended_before_us is None:
        return
    wanted = frozenset(rules.keep_tags)
    seen: Counter[str] = Counter()
    for run in runs:
        seen[run.flow] += 1
        ended_us = run.created_us if run.ended_us is None else run.ended_us
        is_among_last = rules.keep_last is not None and seen[run.flow] <= rules.keep_last
        is_young = rules.ended_before_us is not None and ended_us >= rules.ended_before_us
        if not (is_among_last or is_young or wanted.intersection(run.tags)):
            yield run
