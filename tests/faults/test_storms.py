"""R-18 through a whole run, a sample of python -m tests.faults.storms."""

from collections.abc import Callable

import pytest

from engine.executors.lines import LINE_MAX_BYTES
from tests.faults.storms import MEMORY_BAR_MIB, WAYS, expected, weather

TASKS, MIB = len(WAYS), 3


@pytest.mark.usefixtures("datastore")
async def test_r18_every_character_of_a_storm_is_told_and_kept_in_little_memory(
    record_property: Callable[[str, object], None],
) -> None:
    seen = await weather(TASKS, MIB, slots=TASKS)
    due = expected(TASKS, MIB)
    assert seen.told == due
    assert seen.kept == due
    assert seen.longest <= 4 * LINE_MAX_BYTES, "a byte that is no text is shown as four characters"
    assert seen.memory_mib < MEMORY_BAR_MIB
    record_property("characters printed and kept", due.total())
