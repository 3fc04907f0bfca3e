"""Journals that were worth keeping lead to the same commands, whatever the machine has become."""

from pathlib import Path

import pytest

from tests.sim.kept import FOLDER, replay

JOURNALS = sorted(FOLDER.glob("*.journal"))


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: path.stem)
def test_r23_a_kept_journal_leads_to_the_same_commands(journal: Path) -> None:
    assert list(replay(journal)) == journal.with_suffix(".commands").read_text().splitlines()


def test_there_are_journals_and_each_has_its_commands() -> None:
    assert len(JOURNALS) >= 6
    assert {path.stem for path in JOURNALS} == {path.stem for path in FOLDER.glob("*.commands")}
