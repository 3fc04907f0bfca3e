"""What every test of the client begins and ends with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import client
from engine.client.namespaces import close_default_reader


@pytest.fixture(autouse=True)
def _the_client_of_ada(datastore: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AFLOW_USER", "ada")
    yield
    client.default_namespace()
    close_default_reader()
