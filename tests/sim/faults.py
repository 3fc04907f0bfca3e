"""What goes wrong in one run of the driver, drawn from a seed: values, and no behaviour.

An epoch is one driver's life. A story has up to MAX_EPOCHS of them, each resuming what the one
before it left; in the last nothing goes wrong, so a story ends in success or in a violation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random

from engine.testing.virtual_time import EPOCH_US

MAX_EPOCHS = 4
HOUR_S, DAY_S = 3600, 86_400

FATES = {
    "raises": 8,
    "raises for good": 1,
    "segfaults": 3,
    "exits": 2,
    "stalls": 3,
    "talks nonsense": 2,
    "is lost, then heard of late": 4,
    "ends twice": 8,
    "answers for another": 1,
    "reports by digest": 6,
}
"""What can become of an attempt besides doing well, by weight."""


@dataclass(frozen=True)
class Faults:
    """By default nothing goes wrong. Counts are from 1, times are seconds from the start."""

    tasks: float = 0.0  # how often an attempt meets one of the FATES
    blobs: float = 0.0  # how often the blob store fails, or takes its time
    executor_lost_at_s: float | None = None
    submits_taken: int | None = None  # and then the executor takes no more
    cancel_at_s: tuple[float, ...] = ()  # the caller cancels
    cancel_at_turns: tuple[int, ...] = ()  # the same, at a turn of the event loop
    kill_at_turn: int | None = None  # the driver dies between two turns of its loop
    kill_at_append: tuple[int, str] | None = None  # ... "before", "half" way or "after" an append
    disk_full: tuple[int, int] | None = None  # the first append that fails, and how many do
    observer_raises_at: int | None = None
    metadata_down: tuple[int, int] | None = None  # as disk_full, of the writes of metadata
    log_full_at: int | None = None
    lease_lost_at: int | None = None  # the append before which somebody else has the run

    @property
    def kill(self) -> bool:
        return self.kill_at_turn is not None or self.kill_at_append is not None


@dataclass(frozen=True)
class Epoch:
    """One life of a driver: its faults, and its weather, which must make no difference."""

    seed: int
    number: int
    faults: Faults = field(default_factory=Faults)
    clock_jumps: tuple[tuple[float, int], ...] = ()  # at which second, by how many
    is_on_disk: bool = False  # with the real journal and the real lease
    rival_at_turn: int | None = None  # a second driver wants the run
    skewed: bool = False  # times of jobs are by the wall clock, which jumps

    @property
    def is_calm(self) -> bool:
        """Nothing goes wrong, so the run must succeed."""
        return self.faults == Faults()

    def kinds(self) -> list[str]:
        """The kinds of trouble and weather in it, for counting."""
        calm = Faults()
        troubles = [
            f.name for f in fields(Faults) if vars(self.faults)[f.name] != vars(calm)[f.name]
        ]
        weather = {
            "clock jumps": self.clock_jumps,
            "on disk": self.is_on_disk,
            "rival": self.rival_at_turn,
        }
        return [name.replace("_", " ") for name in troubles] + [w for w in weather if weather[w]]

    def rng(self, purpose: str) -> Random:
        return Random(f"{self.seed}/{self.number}/{purpose}")

    def fate(self, job: str) -> str:
        if self.faults.tasks == 0.0:
            return "does well"
        rng = self.rng(job)
        if rng.random() >= self.faults.tasks:
            return "does well"
        return rng.choices(list(FATES), list(FATES.values()))[0]

    def wall_us(self, at_s: float) -> int:
        """What the wall clock says `at_s` seconds after the start."""
        jumped_s = sum(by_s for jump_s, by_s in self.clock_jumps if jump_s <= at_s)
        return EPOCH_US + round(at_s * 1_000_000) + jumped_s * 1_000_000


def draw_epoch(rng: Random, seed: int, number: int) -> Epoch:
    """The next epoch of a story; the last has faults no more, but weather."""
    is_last = number == MAX_EPOCHS - 1
    is_on_disk = rng.random() < 0.3
    return Epoch(
        seed,
        number,
        Faults() if is_last else _faults(rng, is_on_disk=is_on_disk),
        clock_jumps=_jumps(rng) if rng.random() < 0.4 else (),
        is_on_disk=is_on_disk,
        rival_at_turn=_turn(rng) if is_on_disk and rng.random() < 0.3 else None,
        skewed=rng.random() < 0.5,
    )


def _faults(rng: Random, *, is_on_disk: bool) -> Faults:
    """One large trouble at most, and any number of small ones."""
    names = list(_TROUBLES)
    weights = [_TROUBLES[name][0] for name in names]
    if not is_on_disk:
        weights[names.index("lease lost")] = 0
    make = _TROUBLES[rng.choices(names, weights)[0]][1]
    tasks, blobs = rng.choice((0.0, 0.05, 0.2, 0.5)), rng.choice((0.0, 0.0, 0.1, 0.5))
    return replace(make(rng), tasks=tasks, blobs=blobs)


def _turn(rng: Random) -> int:
    return int(2 ** rng.uniform(0.0, 9.0))


def _turns(rng: Random) -> tuple[int, ...]:
    turns = {_turn(rng) for _ in range(2 if rng.random() < 0.3 else 1)}
    return tuple(sorted(turns))


def _count(rng: Random) -> int:
    return int(2 ** rng.uniform(0.0, 6.0))


def _cancels(rng: Random) -> tuple[float, ...]:
    first = rng.choice((0.0, rng.uniform(0.0, 20.0)))
    return (first, first + rng.uniform(0.0, 4.0)) if rng.random() < 0.3 else (first,)


def _jumps(rng: Random) -> tuple[tuple[float, int], ...]:
    jumps = (-DAY_S, -HOUR_S, HOUR_S, DAY_S)
    return tuple(
        sorted((rng.uniform(-1.0, 15.0), rng.choice(jumps)) for _ in range(rng.randint(1, 3)))
    )


_TROUBLES: Mapping[str, tuple[int, Callable[[Random], Faults]]] = {
    "none": (8, lambda rng: Faults()),
    "killed": (18, lambda rng: Faults(kill_at_turn=_turn(rng))),
    "killed at an append": (
        12,
        lambda rng: Faults(kill_at_append=(_count(rng), rng.choice(("before", "half", "after")))),
    ),
    "cancelled": (10, lambda rng: Faults(cancel_at_s=_cancels(rng))),
    "cancelled at a turn": (10, lambda rng: Faults(cancel_at_turns=_turns(rng))),
    "disk full": (10, lambda rng: Faults(disk_full=(_count(rng), rng.choice((1, 2, 1_000))))),
    "executor lost": (5, lambda rng: Faults(executor_lost_at_s=rng.uniform(0.0, 20.0))),
    "executor refuses": (5, lambda rng: Faults(submits_taken=rng.randint(0, 8))),
    "observer raises": (6, lambda rng: Faults(observer_raises_at=_count(rng))),
    "metadata down": (6, lambda rng: Faults(metadata_down=(_count(rng), rng.choice((1, 1_000))))),
    "log full": (4, lambda rng: Faults(log_full_at=rng.randint(1, 3))),
    "lease lost": (8, lambda rng: Faults(lease_lost_at=_count(rng))),
}
"""The large troubles: how often each is drawn, and how it is made."""
