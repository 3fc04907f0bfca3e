"""One seed, one story: a flow is run, disturbed, killed and resumed until it is done.

Everything is drawn from the seed and happens on one thread in virtual time, so a seed tells the
same story each time, to the byte.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from blake3 import blake3

from engine.testing.fakes import MemoryBlobs
from tests.sim.cast import AS_SHIPPED, Cast
from tests.sim.epoch import EpochRun, Stage
from tests.sim.faults import MAX_EPOCHS, draw_epoch
from tests.sim.flows import random_flow
from tests.sim.oracle import Journal, commits_of, demand, judge_values
from tests.sim.stores import DiskJournal


@dataclass
class Story:
    """What happened, for people and for comparing. `digest` is over every line and journal."""

    seed: int
    lines: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    tasks: int = 0

    @property
    def digest(self) -> str:
        return blake3("\n".join(self.lines).encode()).hexdigest()


Keep = Callable[[int, Journal], None]
"""Told of each epoch's number and the journal that it left, also if it was judged to be wrong."""


def simulate(seed: int, cast: Cast = AS_SHIPPED, *, keep: Keep | None = None) -> Story:
    """Play a seed to its end.

    Raises:
        ViolationError: the guarantee was broken.
        StuckError: the driver waits for what never comes.
    """
    with tempfile.TemporaryDirectory(prefix="aflow-sim-") as folder, ExitStack() as stack:
        return _play(seed, cast, Path(folder), stack, keep or (lambda number, journal: None))


def _play(seed: int, cast: Cast, folder: Path, stack: ExitStack, keep: Keep) -> Story:
    rng, story = Random(seed), Story(seed)
    graph = random_flow(rng)
    stage = Stage(
        graph,
        slots=rng.randint(1, 6),
        on_failure=rng.choice(("finish", "cancel")),
        blobs=MemoryBlobs(),
        folder=folder,
        cast=cast,
    )
    story.lines.append(
        f"flow of {len(graph.nodes)} steps, {stage.slots} slots, {stage.on_failure} on failure"
    )
    before: list[Journal] = []  # the run to go on from first, then its origin, and so on
    run_ids: list[str] = []
    for number in range(MAX_EPOCHS):
        epoch = draw_epoch(rng, seed, number)
        story.lines.append(f"-- {epoch}")
        run = EpochRun(stage, epoch, before, run_ids)
        if isinstance(run.journal.inner, DiskJournal):
            stack.callback(run.journal.inner.close)
        try:
            ending = run.play()
        finally:
            keep(number, run.journal)
            story.lines += run.lines
        story.seen.update(run.worker.fates)
        story.seen.update([ending, *epoch.kinds()])
        if run.is_success:
            judge_values(graph, seed, run.journal, stage.blobs.blobs)
            story.tasks = len(commits_of(run.journal))
            return story
        before = [run.journal, *before]
        run_ids.append(run.run_id)
    demand(False, "the calm epoch did not end in success")
    return story
