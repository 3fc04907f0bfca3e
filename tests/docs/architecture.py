"""Draws what docs/ARCHITECTURE.md says of the code from the code.

python -m tests.docs.architecture        writes the page's generated blocks anew
"""

import configparser

from engine.scheduler.machine import LEGAL_MOVES, State
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "ARCHITECTURE.md"


def moves() -> str:
    """The machine's states and moves, from its table."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.READY}"]
    for state, targets in LEGAL_MOVES.items():
        lines += [f"    {state} --> {to}" for to in LEGAL_MOVES if to in targets]
        if not targets:
            lines.append(f"    {state} --> [*]")
    return "\n".join(["```mermaid", *lines, "```"])


def layers() -> str:
    """The layers that import-linter enforces, the highest first."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    contract = setup["importlinter:contract:layers"]["layers"]
    return "\n".join(["```text", *contract.strip().splitlines(), "```"])


GENERATED = {"layers": layers, "moves": moves}


def drawn(page: str) -> str:
    """The page with each of its generated blocks as it should be."""
    for name, draw in GENERATED.items():
        opening, closing = f"<!-- generated: {name} -->\n", "<!-- end -->"
        if page.count(opening) != 1:
            raise ValueError(f"the page has {page.count(opening)} blocks named {name!r}, not one")
        before, rest = page.split(opening)
        page = f"{before}{opening}{draw()}\n{closing}{rest.partition(closing)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
