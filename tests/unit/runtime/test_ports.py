"""A gang's port is free, and its own."""

import socket

import pytest

from engine.errors import ExecutorError
from engine.runtime import ports
from engine.runtime.ports import Ports


def test_gangs_that_run_at_once_have_ports_of_their_own() -> None:
    taken = Ports()
    found = [taken.take("a gang") for _ in range(20)]
    assert len(set(found)) == 20
    assert all(20_000 <= port < 32_000 for port in found)


def test_a_port_at_which_somebody_listens_is_not_given() -> None:
    first = Ports().take("a gang")
    with socket.create_server(("127.0.0.1", first)):
        assert Ports().take("a gang") != first


def test_when_no_port_is_free_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", range(port, port + 1))
        with pytest.raises(ExecutorError, match="is free for a gang"):
            Ports().take("a gang")
