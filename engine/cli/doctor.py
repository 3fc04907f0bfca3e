"""`aflow doctor`: is this machine fit to run flows? What was found, and how to mend it.

Checks change nothing that stays: a file is written into the datastore's directory, or the place
where it would be made, and taken away again.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from msgspec import Struct
from msgspec.structs import asdict

from engine.cli import times
from engine.cli.clock import now_us
from engine.cli.options import session, verb
from engine.config import Config
from engine.errors import EXIT_CONFIG, EngineError

_FREE_LOW = 1 << 30
_FILES_LOW = 1024
_CLOCK_EARLIEST_US = 1_750_000_000_000_000  # June 2025: an earlier clock has never been set
_SQLITE_OLDEST = (3, 35, 0)  # upsert and row values, with years to spare


class Finding(Struct, frozen=True):
    """`level`: "ok", "warning", "error"."""

    check: str
    level: str
    found: str
    hint: str = ""


@verb(
    "doctor",
    examples="aflow doctor\naflow doctor --json\naflow doctor batch --queue ml",
    json=True,
)
@click.argument("what", default="here", type=click.Choice(["here", "batch"]), metavar="[batch]")
@click.option("--queue", default="", metavar="Q", help="The job queue, of `batch`.")
def command(what: str, queue: str) -> int:
    """Check this machine: Python, the datastore, free space, processes, limits, the clock. With
    `batch`, what steps in AWS Batch need: credentials, bucket, queue, roles."""
    now = session()
    findings = list(examine(now.config)) if what == "here" else _batch(now.config, queue)
    if now.json:
        told = [asdict(finding) for finding in findings]
        print(json.dumps({"schema": "aflow/doctor/1", "findings": told}))
    else:
        for finding in findings:
            print(f"{finding.level:7}  {finding.check:10}  {finding.found}")
            if finding.hint:
                print(f"{'':19}  hint: {finding.hint}")
    return EXIT_CONFIG if any(f.level == "error" for f in findings) else 0


def _batch(config: Config, queue: str) -> list[Finding]:
    import asyncio

    from engine.runtime.batch_doctor import examine_batch

    async def work() -> list[Finding]:
        found = [finding async for finding in examine_batch(config, queue)]
        return [Finding(f.check, f.level, f.found, f.hint) for f in found]

    return asyncio.run(work())


def examine(config: Config) -> Iterator[Finding]:
    """Make every check."""
    checks: tuple[Callable[[Config], Finding], ...] = (
        _python,
        _datastore,
        _free_space,
        _sqlite,
        _fork,
        _open_files,
        _processes,
        _clock,
    )
    for check in checks:
        try:
            yield check(config)
        except OSError as error:
            yield Finding(check.__name__.strip("_"), "error", f"{error}")


def _python(config: Config) -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    level = "ok" if sys.version_info >= (3, 11) else "error"
    return Finding("python", level, f"{version} at {sys.executable}")


def _datastore(config: Config) -> Finding:
    from engine.stores.layout import open_layout

    root = Path(config.datastore)
    if "://" in config.datastore:
        return _object_store(config)
    if not root.exists():
        place = _existing(root)
        found = f"{root} will be made in {place}"
        with tempfile.TemporaryDirectory(dir=place, prefix=".aflow-doctor-"):
            return Finding("datastore", "ok", found)
    try:
        open_layout(root)
    except EngineError as error:
        return Finding("datastore", "error", error.message, error.hint or "")
    with tempfile.TemporaryFile(dir=root):
        return Finding("datastore", "ok", f"{root} can be written")


def _object_store(config: Config) -> Finding:
    from engine.datastores import replica_layout

    try:
        replica_layout(config)
    except EngineError as error:
        return Finding("datastore", "error", error.message, error.hint or "")
    from engine.cli.doctor_s3 import ask

    asked = ask(config)
    return Finding("datastore", asked.level, asked.found, asked.hint)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _free_space(config: Config) -> Finding:
    where = config.cache_dir if "://" in config.datastore else config.datastore
    place = _existing(Path(where))
    free = shutil.disk_usage(place).free
    low = free < _FREE_LOW
    hint = (
        "free some space (see `aflow gc`), or use another place with --datastore DIR" if low else ""
    )
    return Finding("space", "warning" if low else "ok", f"{times.size(free)} free", hint)


def _sqlite(config: Config) -> Finding:
    import sqlite3

    level = "ok" if sqlite3.sqlite_version_info >= _SQLITE_OLDEST else "error"
    return Finding("sqlite", level, sqlite3.sqlite_version)


def _fork(config: Config) -> Finding:
    began_us = now_us()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        return Finding("fork", "error", "a forked process did not end well")
    return Finding("fork", "ok", f"works, {(now_us() - began_us) / 1000:.1f} ms")


def _open_files(config: Config) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Two pipes and a descriptor or two for each task at once.
    need = max(_FILES_LOW, 8 * config.max_workers)
    low = soft != resource.RLIM_INFINITY and soft < need
    hint = f"ulimit -n {need}" if low else ""
    return Finding("files", "warning" if low else "ok", f"{_limit(soft)} may be open", hint)


def _processes(config: Config) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    low = soft != resource.RLIM_INFINITY and soft < 4 * config.max_workers
    hint = f"ulimit -u {8 * config.max_workers}, or fewer --max-workers" if low else ""
    found = f"{_limit(soft)} allowed, {config.max_workers} tasks at once"
    return Finding("processes", "warning" if low else "ok", found, hint)


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else f"{value:,}"


def _clock(config: Config) -> Finding:
    at_us = now_us()
    if at_us < _CLOCK_EARLIEST_US:
        return Finding("clock", "error", times.iso(at_us), "set the clock: run ids sort by time")
    ahead_us = _newest_run_us(config) - at_us
    if ahead_us > 1_000_000:
        found = f"{times.duration(ahead_us)} behind the latest run"
        return Finding("clock", "warning", found, "the clock was set back: set it right")
    return Finding("clock", "ok", times.iso(at_us))


def _newest_run_us(config: Config) -> int:
    from engine.client.reader import Reader

    try:
        with Reader.open(config) as reader:
            newest = next(reader.runs(), None)
    except EngineError:
        return 0
    return newest.created_us if newest else 0
