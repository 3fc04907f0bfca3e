from collections.abc import AsyncIterator

import pytest

from engine.testing.servers import ServerAddress
from tests.conformance.batch_client import BatchClient, batch_client


@pytest.fixture
async def batch(batch_emulator: ServerAddress) -> AsyncIterator[BatchClient]:
    async with batch_client(batch_emulator) as client:
        yield client
