"""The architecture page shows the machine and the layers that there are."""

import pytest

from engine.scheduler.machine import LEGAL_MOVES
from tests.docs.architecture import PAGE, drawn, layers, moves


def test_the_pages_diagrams_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert drawn(page) == page, "run `python -m tests.docs.architecture`"


def test_every_legal_move_is_an_arrow() -> None:
    arrows = {line.strip() for line in moves().splitlines()}
    for state, targets in LEGAL_MOVES.items():
        assert {f"{state} --> {to}" for to in targets} <= arrows
    within = {arrow for arrow in arrows if "-->" in arrow and "[*]" not in arrow}
    assert len(within) == sum(len(targets) for targets in LEGAL_MOVES.values())


def test_a_task_begins_ready_and_ends_where_no_move_leads_on() -> None:
    text = moves()
    assert text.count("[*] -->") == 1
    assert "[*] --> ready" in text
    for state, targets in LEGAL_MOVES.items():
        assert (f"{state} --> [*]" in text) is not bool(targets)


def test_the_layers_are_in_order() -> None:
    lines = layers().splitlines()
    assert lines.index("runtime") < lines.index("flow") < lines.index("ids")


def test_a_page_without_its_block_is_refused() -> None:
    with pytest.raises(ValueError, match="0 blocks named 'layers'"):
        drawn("no blocks here")
