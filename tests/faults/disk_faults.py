"""R-08: every call on the datastore's file system is refused in turn; what is left is held sound.

python -m tests.faults.disk_faults [--only ENOSPC] [--step N]      every call; counts are printed

A trial refuses the n-th call of a run's driver and tasks, and, as a full disk does, all after it.
The run has to end with code 6 and say which path, and with a full disk how much it needs and how
much is free; no blob may be there in part, no journal damaged. Then the fault is gone, the run is
resumed, and what is left is held against the oracle.
"""

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import EXIT_INFRASTRUCTURE, StoreError
from engine.stores.directory import digest_of
from engine.stores.journals import JournalReader
from tests.faults.crashes import Digests, Site, Undisturbed
from tests.faults.vfs import REFUSALS, Calls

PASSING = ("EMFILE", "ENOMEM")
"""Refused once: the next call finds a free handle, or memory."""
_ROOM = re.compile(r"[\d,]+ bytes are needed, [\d,]+ are free")


def site_of(folder: Path) -> Site:
    return Site(folder, outer=1, inner=2)


@dataclass
class Count:
    """What many refusals add up to."""

    refused: Counter[str] = field(default_factory=Counter)
    ended_well: int = 0
    with_room: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {name}" for name, n in self.refused.items())
        return (
            f"{self.refused.total()} refusals ({kinds}); {self.ended_well} runs did without what "
            f"was refused, {self.with_room} told need and room, {len(self.problems)} problems"
        )


def trial(folder: Path, name: str, number: int, expected: Digests, count: Count) -> bool:
    """Refuse one call of one run and resume it; return whether so many calls were made."""
    site = site_of(folder / "site")
    calls = Calls(site.store, folder, REFUSALS[name][1])
    last = number if name in PASSING else None
    code = site.call(["run", "nested.py"], **calls.refuse(name, number, last))
    if calls.count < number:
        return False
    said = site.said()
    problems = list(_told(name, code, said, site.store)) + list(_unsound(site))
    count.refused[name] += 1
    count.ended_well += code == 0
    count.with_room += bool(_ROOM.search(said))
    if code and (code := site.call(site.next_words)):
        problems.append(f"the resumed run ended with {code}: {site.said()}")
    problems += site.verdict(expected).problems
    count.problems += [f"{name}:{number}: {p}\n{said}" for p in problems]
    return True


def _told(name: str, code: int, said: str, store: Path) -> Iterator[str]:
    if code == 0:
        return
    if code != EXIT_INFRASTRUCTURE:
        yield f"ended with {code}"
    if str(store) not in said:
        yield "the path is not told"
    if "hint: " not in said:
        yield "no hint"
    if name == "ENOSPC" and "bytes are needed" in said and not _ROOM.search(said):
        yield "need and room are not told"
    if "Traceback" in said and "engine/" in said.partition("Traceback")[2].partition("error[")[0]:
        yield "the engine's own frames are shown"


def _unsound(site: Site) -> Iterator[str]:
    for blob in site.store.glob("blobs/??/*"):
        if digest_of([blob.read_bytes()]) != blob.name:
            yield f"blob {blob.name} is there in part"
    for journal in site.store.glob("runs/*/*/journal"):
        try:
            with JournalReader(str(journal)) as reader:
                reader.end()
                if reader.torn:
                    yield f"{journal} ends in {reader.torn}"
        except StoreError as error:
            yield str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=REFUSALS, help="this refusal only")
    parser.add_argument("--step", type=int, default=1, help="every n-th call only")
    options = parser.parse_args()
    count, began = Count(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = Undisturbed.run(site_of(folder / "undisturbed")).digests
        for refusal in [options.only] if options.only else REFUSALS:
            for number in range(1, 10_000, options.step):
                told = len(count.problems)
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    if not trial(Path(place), refusal, number, expected, count):
                        break
                for problem in count.problems[told:]:
                    print(problem, flush=True)  # noqa: T201
            print(f"{refusal}: {count}, {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
    return int(bool(count.problems))


if __name__ == "__main__":
    sys.exit(main())
