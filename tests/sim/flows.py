"""Random flows from a seed: branched, fanned out, nested and in gangs, with retries and @catch."""

from dataclasses import dataclass
from random import Random

from engine.flow.graph import Graph, Retry
from tests.unit.scheduler.flows import Branch, Foreach, Gang, Shape, Step, flow

MAX_DEPTH = 3


@dataclass
class _Names:
    count: int = 0

    def next(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


def random_flow(rng: Random) -> Graph:
    names = _Names()
    return flow(*(_shape(rng, names, 0) for _ in range(rng.randint(1, 3))))


def _shape(rng: Random, names: _Names, depth: int) -> Shape:
    roll = rng.random()
    if depth == MAX_DEPTH or roll < 0.5:
        return _step(rng, names)
    if roll < 0.6:
        return Gang(names.next("gang"), _step(rng, names))
    if roll < 0.8:
        return Foreach(names.next("each"), _body(rng, names, depth + 1))
    arms = tuple(_body(rng, names, depth + 1) for _ in range(rng.randint(1, 3)))
    return Branch(names.next("fork"), arms)


def _step(rng: Random, names: _Names) -> Step:
    return Step(
        names.next("step"),
        Retry(times=rng.choice((0, 0, 1, 2)), delay_s=rng.choice((0.0, 1.0, 30.0))),
        catches=rng.random() < 0.2,
        timeout_s=60.0 if rng.random() < 0.3 else None,
    )


def _body(rng: Random, names: _Names, depth: int) -> tuple[Shape, ...]:
    return tuple(_shape(rng, names, depth) for _ in range(rng.choice((1, 1, 2))))
