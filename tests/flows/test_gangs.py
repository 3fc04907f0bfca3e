"""Gangs of real processes: they meet, they fail, they are tried again and resumed whole."""

from pathlib import Path

import pytest

from tests.flows.harness import Bench, tasks, values

pytestmark = pytest.mark.usefixtures("datastore")

SOURCE = '''
import atexit, os, signal, socket, sys, time
from pathlib import Path
from engine import FlowSpec, Parameter, catch, current, environment, parallel, retry, step, timeout

TRACES = Path(os.environ.get("TRACES", "."))


def trace(word):
    """Leave a file that tells of this attempt."""
    (TRACES / f"{word}-{current.retry_count}-{current.task_id}").touch()


def numbers_of(connection):
    text = b""
    while not text.endswith(b"\\n"):
        piece = connection.recv(100)
        if not piece:
            raise ConnectionError("a peer has gone")
        text += piece
    return int(text)


def joined(place):
    while True:
        try:
            return socket.create_connection(place)
        except ConnectionRefusedError:
            time.sleep(0.01)


def all_reduce(number):
    """The sum of the numbers of all of the gang, by the variables that torchrun would set."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank == 0:
        with socket.create_server(place) as server:
            peers = [server.accept()[0] for _ in range(size - 1)]
        total = number + sum(numbers_of(peer) for peer in peers)
        for peer in peers:
            peer.sendall(f"{total}\\n".encode())
            peer.close()
        return total
    with joined(place) as peer:
        peer.sendall(f"{number}\\n".encode())
        return numbers_of(peer)


class Shaped(FlowSpec):
    size = Parameter("size", default=4)
    fault = Parameter("fault", default="")

    @step
    def start(self):
        self.scale = 10
        self.next(self.train, num_parallel=self.size)

    DECORATORS
    @parallel
    @step
    def train(self):
        place = current.parallel
        trace("began")
        if place.node_index == 2:
            exec(self.fault)
        self.rank, self.attempt = place.node_index, current.retry_count
        self.total = all_reduce(self.scale * (place.node_index + 1))
        self.place = (place.main_ip, place.num_nodes, place.control_task_id, self.index, self.input)
        names = "WORLD_SIZE", "RANK", "NODE_RANK", "LOCAL_RANK", "MASTER_ADDR"
        self.told = {name: os.environ[name] for name in names}
        trace("ended")
        self.next(self.join)

    @step
    def join(self, inputs):
        assert not current.is_parallel
        print("attempts", [getattr(i, "attempt", None) for i in inputs])
        self.ranks = [getattr(i, "rank", None) for i in inputs]
        self.totals = [getattr(i, "total", None) for i in inputs]
        self.errors = [str(getattr(i, "error", None)) for i in inputs]
        if "in the join" in self.fault:
            raise ValueError("the join fails")
        self.next(self.end)

    @step
    def end(self):
        pass
'''


def bench(folder: Path, monkeypatch: pytest.MonkeyPatch, decorators: str = "") -> Bench:
    (folder / "traces").mkdir()
    monkeypatch.setenv("TRACES", str(folder / "traces"))
    return Bench.holding(SOURCE.replace("DECORATORS", decorators or "pass"), folder)


def traces(folder: Path, word: str) -> list[str]:
    return sorted(path.name for path in (folder / "traces").glob(f"{word}-*"))


@pytest.mark.parametrize("workers", ["8", "1"], ids=["with room", "wider than the workers"])
def test_a_gang_meets_and_its_join_gets_it_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    run = bench(tmp_path, monkeypatch).run("--max-workers", workers)
    assert values(run, "join", "ranks") == [[0, 1, 2, 3]]
    assert values(run, "join", "totals") == [[100] * 4]
    first, *_, last = run["train"].tasks()
    assert [t.id for t in run["train"]] == ["0", "1", "2", "3"]
    assert last.data.place == ("127.0.0.1", 4, "0", 3, 3)
    assert last.data.told == {
        "WORLD_SIZE": "4",
        "RANK": "3",
        "NODE_RANK": "3",
        "LOCAL_RANK": "3",
        "MASTER_ADDR": "127.0.0.1",
    }
    control = run["train"].control_task
    assert control is not None
    assert control.id == first.id == "0"
    assert run["start"].control_task is None


@pytest.mark.parametrize(
    "fault", ["raise ValueError('boom')", "os._exit(9)", "os.kill(os.getpid(), 9)"]
)
def test_when_one_fails_the_whole_gang_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    made = bench(tmp_path, monkeypatch, "@retry(times=1, minutes_between_retries=0)")
    # The others wait for the one that fails, for ever: they have to be ended.
    run = made.run("--fault", f"if current.retry_count == 0: {fault}")
    assert values(run, "join", "totals") == [[100] * 4]
    assert traces(tmp_path, "began")[-4:] == [f"began-1-{index}" for index in range(4)]
    assert traces(tmp_path, "ended") == [f"ended-1-{index}" for index in range(4)]


def test_a_gang_that_fails_for_good_fails_the_run_and_blames_who_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bench(tmp_path, monkeypatch).aflow("run", "shaped.py", "--fault", "raise KeyError('x')")
    assert said.code == 1, said
    assert "train/2" in said.err
    assert "KeyError" in said.err


def test_a_member_over_its_time_ends_the_gang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch, "@timeout(seconds=2)\n    @catch(var='error')")
    run = made.run("--fault", "time.sleep(300)")
    # All have the same time, and three wait for a peer: whichever fails first, time was the cause.
    [errors] = values(run, "join", "errors")
    assert all("@timeout" in error for error in errors), errors
    assert traces(tmp_path, "ended") == []


LATE = """
            atexit.register(time.sleep, 0.7)
            with joined((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))) as peer:
                FAULT
        signal.setitimer(signal.ITIMER_REAL, 0)
"""


# By the time its text is there, the gang has been told to end.
SLOWLY = "raise type('E', (Exception,), {'__str__': lambda self: time.sleep(0.5) or 'the cause'})"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("time.sleep(300)", "@timeout"),
        ("raise KeyError('the cause')", "KeyError: 'the cause'"),
        (SLOWLY, "the cause"),
    ],
    ids=["time-out", "exception", "exception that is told slowly"],
)
def test_the_cause_is_told_though_a_peer_notices_it_and_ends_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, cause: str
) -> None:
    made = bench(tmp_path, monkeypatch, "@timeout(seconds=2)\n    @catch(var='error')")
    source = made.flow.read_text()
    hook = "\n            exec(self.fault)\n"
    assert hook in source
    made.flow.write_text(source.replace(hook, LATE.replace("FAULT", fault)))
    [errors] = values(made.run(), "join", "errors")
    assert all(cause in error for error in errors), errors


def test_a_failure_is_caught_for_the_whole_gang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch, "@catch(var='error')")
    run = made.run("--fault", "raise ValueError('boom')")
    assert values(run, "join", "totals") == [[None] * 4]
    [errors] = values(run, "join", "errors")
    assert all("boom" in error for error in errors)


def test_a_resumed_run_reuses_a_gang_that_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch)
    made.run("--fault", "'fail in the join'", expected=1)
    before = traces(tmp_path, "began")
    source = made.flow.read_text().replace("in the join", "nowhere")
    made.flow.write_text(source)
    run = made.resume()
    assert values(run, "join", "ranks") == [[0, 1, 2, 3]]
    assert traces(tmp_path, "began") == before


def test_a_resumed_run_does_a_gang_again_whole_of_which_one_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch)
    fault = "assert (TRACES / 'mended').exists()"
    made.run("--fault", fault, expected=1)
    for path in (tmp_path / "traces").iterdir():
        path.unlink()
    (tmp_path / "traces" / "mended").touch()
    run = made.resume()
    assert values(run, "join", "totals") == [[100] * 4]
    assert traces(tmp_path, "ended") == [f"ended-0-{index}" for index in range(4)]
    assert [task.finished for task in tasks(run, "train")] == [True] * 4


def test_more_than_one_gang_can_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, monkeypatch)
    source = made.flow.read_text()
    source = source.replace(
        "self.next(self.train, num_parallel=self.size)",
        "self.items = [1, 2, 3]\n        self.next(self.fan, foreach='items')\n\n"
        "    @step\n    def fan(self):\n        self.scale = self.input\n"
        "        self.next(self.train, num_parallel=self.size)",
    ).replace(
        "        self.next(self.end)\n",
        "        self.next(self.gather)\n\n    @step\n    def gather(self, inputs):\n"
        "        self.totals = [i.totals for i in inputs]\n        self.next(self.end)\n",
    )
    made.flow.write_text(source)
    run = made.run("--size", "2", "--max-workers", "6")
    assert values(run, "gather", "totals") == [[[3, 3], [6, 6], [9, 9]]]
    assert sorted(t.id for t in run["train"].control_tasks()) == ["0.0", "1.0", "2.0"]
