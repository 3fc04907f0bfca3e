"""Of the failures of a gang the cause is told, and not what follows from it."""

import itertools

import pytest

from engine.errors import Failure
from engine.executors.base import Exit, ExitKind
from engine.scheduler.blame import TOGETHER_US, Kind, cause
from engine.scheduler.outcomes import failure_of


def raised(type: str, message: str) -> Failure:
    return Failure("task-failed", message, type=type)


TIMED_OUT = Failure("task-timeout", "ran longer than its @timeout of 2 s")
KILLED = failure_of(Exit(ExitKind.TIMED_OUT, detail="6 s after its start"))
SEGFAULT = failure_of(Exit(ExitKind.SIGNAL, 11))
EXITED = failure_of(Exit(ExitKind.CODE, 9))
NO_MEMORY = Failure("out-of-memory", "the container ran out of memory")
BOOM = raised("ValueError", "boom")
CANCELLED = failure_of(Exit(ExitKind.CANCELLED, detail="work/1 failed: a peer has gone"))
NODE_ENDED = Failure("node-ended", "the container was ended with the others of its gang")
LOST_PEERS = [
    raised("ConnectionError", "a peer has gone"),
    raised("ConnectionResetError", "[Errno 104] Connection reset by peer"),
    raised("BrokenPipeError", "[Errno 32] Broken pipe"),
    raised("EOFError", ""),
    raised("asyncio.exceptions.IncompleteReadError", "0 bytes read on a total of 4"),
    raised("torch.distributed.DistBackendError", "NCCL error: unhandled system error"),
    raised("RuntimeError", "[pair.cc:598] Connection closed by peer [10.0.0.1]:4021"),
    raised("RuntimeError", "ncclRemoteError: remote process exited or there was a network error"),
    raised("mine.CommError", "the connection to rank 3 was lost"),
]
OWN = [TIMED_OUT, KILLED, SEGFAULT, EXITED, NO_MEMORY, BOOM]
FOLLOWS = [*LOST_PEERS, CANCELLED, NODE_ENDED]


@pytest.mark.parametrize("own", OWN, ids=lambda f: f.summary[:30])
@pytest.mark.parametrize("other", FOLLOWS, ids=lambda f: f.summary[:30])
def test_what_follows_never_wins_over_a_failure_of_ones_own(own: Failure, other: Failure) -> None:
    for own_us, other_us in itertools.product((5, 50 * TOGETHER_US), repeat=2):
        assert cause([(other, other_us), (own, own_us)]) == 1
        assert cause([(own, own_us), (other, other_us)]) == 0


@pytest.mark.parametrize("own", [TIMED_OUT, KILLED, SEGFAULT, EXITED, NO_MEMORY])
def test_the_end_of_a_process_wins_over_an_exception_at_about_the_same_time(own: Failure) -> None:
    # Who reads nothing where a peer has gone may well raise a ValueError.
    assert cause([(BOOM, 0), (own, TOGETHER_US)]) == 1
    assert cause([(own, TOGETHER_US), (BOOM, 0)]) == 0


def test_an_exception_that_was_clearly_before_is_the_cause_of_who_waited_too_long() -> None:
    assert cause([(TIMED_OUT, TOGETHER_US + 1), (BOOM, 0)]) == 1


def test_of_equals_the_first_to_end_counts_and_then_the_first_heard_of() -> None:
    assert cause([(BOOM, 7), (BOOM, 5), (BOOM, 6)]) == 1
    assert cause([(LOST_PEERS[0], 7), (LOST_PEERS[1], 5)]) == 1
    assert cause([(TIMED_OUT, 5), (TIMED_OUT, 5)]) == 0


def test_if_nothing_else_is_known_who_lost_a_peer_says_more_than_who_was_cancelled() -> None:
    assert cause([(CANCELLED, 0), (LOST_PEERS[0], 9)]) == 1
    assert cause([(CANCELLED, 3), (CANCELLED, 3)]) == 0


def test_a_node_that_was_ended_by_hand_is_why_the_others_lost_a_peer() -> None:
    assert cause([(LOST_PEERS[0], 0), (NODE_ENDED, 9)]) == 1


def test_an_exception_that_says_nothing_of_peers_is_ones_own() -> None:
    for message in ("no such file", "the socket is blue", "speerlike", "connection string is odd"):
        assert Kind.of(raised("ValueError", message)) is Kind.RAISED, message
