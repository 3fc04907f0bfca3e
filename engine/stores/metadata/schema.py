"""The tables of the local metadata database, its version, and opening it.

The version is SQLite's `user_version`. An older database is brought up step by step, in one
transaction; a later one is refused. Everything in it can be made again from the journals.
"""

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from engine import crashpoints
from engine.errors import (
    MetadataDamagedError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from engine.stores.access import access_error
from engine.stores.directory import sync_directory

BUSY_TIMEOUT_S = 60.0

_UPGRADES = (
    # 0 -> 1. Times are microseconds since 1970, UTC; tags are JSON arrays of strings.
    """
    CREATE TABLE runs (
        flow TEXT NOT NULL, run_id TEXT NOT NULL, status TEXT NOT NULL,
        created_us INTEGER NOT NULL, ended_us INTEGER, user TEXT NOT NULL,
        tags TEXT NOT NULL, system_tags TEXT NOT NULL, origin_run_id TEXT, reason TEXT,
        host TEXT NOT NULL, pid INTEGER,
        PRIMARY KEY (flow, run_id)
    ) WITHOUT ROWID;
    CREATE INDEX runs_by_time ON runs (created_us, run_id, flow);
    CREATE TABLE tasks (
        flow TEXT NOT NULL, run_id TEXT NOT NULL, step TEXT NOT NULL, task_id TEXT NOT NULL,
        ordinal INTEGER NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL,
        started_us INTEGER, ended_us INTEGER, result INTEGER,
        reused INTEGER NOT NULL, caught INTEGER NOT NULL, failure BLOB,
        PRIMARY KEY (flow, run_id, step, task_id)
    ) WITHOUT ROWID;
    CREATE INDEX tasks_by_ordinal ON tasks (flow, run_id, ordinal);
    """,
)
VERSION = len(_UPGRADES)


OnMade = Callable[[sqlite3.Connection], None]


def connect(
    path: str, *, durability: str = "process", on_made: OnMade | None = None
) -> sqlite3.Connection:
    """Open the database, making it or bringing it up to date. Many processes may do so at once.

    Args:
        path: of its file.
        durability: "process" or "power".
        on_made: fills a database that was empty, in the transaction that makes its tables.

    Raises:
        StoreAccessError, StoreUnavailableError: the file system refuses, or a lock is never freed.
        MetadataDamagedError: it is no database, or damaged.
        StoreError: it is of a later version.
    """
    with sqlite_errors(path):
        _make_private(path, durability)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _use_wal(connection)
            level = "FULL" if durability == "power" else "NORMAL"
            connection.execute(f"PRAGMA synchronous = {level}")
            _upgrade(connection, path, on_made)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_private(path: str, durability: str) -> None:
    """Make the file, for its mode: SQLite would let others read it.

    It is made without being opened, because closing any handle of a database file drops the locks
    that all other connections of this process have on it (POSIX, fcntl F_SETLK; SQLite, How To
    Corrupt, 2.2): two writers at once then lose rows. And without a second name, which a crash
    would leave.
    """
    if os.path.exists(path):
        return
    try:
        try:
            os.mknod(path, stat.S_IFREG | 0o600)
        except PermissionError:
            _link_private(path)
        if durability == "power":
            sync_directory(os.path.dirname(path) or ".")
    except FileExistsError:
        return  # another process or thread was first
    except OSError as error:
        raise access_error(error, path, "open") from error
    crashpoints.METADATA_AFTER_FILE.passed()


def _link_private(path: str) -> None:
    """As `_make_private` where mknod is for root alone, as on macOS."""
    fresh = f"{path}.{os.getpid()}-{os.urandom(8).hex()}"
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        os.link(fresh, path)
    finally:
        os.unlink(fresh)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. The switch takes a lock that SQLite does not wait for, so wait here."""
    pause = threading.Event()
    for wait_s in (0.001 * 2**n for n in range(14)):  # 16 s in all; the switch takes 1 ms
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            pause.wait(wait_s)
    connection.execute("PRAGMA journal_mode = WAL")


def damage_in(path: str) -> str | None:
    """What SQLite finds wrong with the database; None if nothing, or if there is none.

    Raises:
        StoreError: as `connect`, but for damage.
    """
    if not os.path.exists(path) or not os.path.getsize(path):
        return None
    try:
        with closing(connect(path)) as connection, sqlite_errors(path):
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if found == "ok" and _tables(connection) != _tables_of_this_version():
                return "its tables are not those of its version"
            return None if found == "ok" else str(found)
    except MetadataDamagedError as error:
        return error.problem


def _upgrade(connection: sqlite3.Connection, path: str, on_made: OnMade | None) -> None:
    version = _version(connection)
    if version == VERSION:
        return
    if version > VERSION:
        raise StoreError(
            f"{path} is metadata of version {version}; this aflow reads version {VERSION}",
            hint="use the aflow that wrote it, or a later one; if none did, remove the file: it is "
            "made again from the journals",
        )
    with transaction(connection):
        # Another process may have done it while this one waited for the lock.
        version = _version(connection)
        for upgrade in _UPGRADES[version:]:
            for statement in upgrade.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        if version == 0 and on_made is not None:
            on_made(connection)


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    sql = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    return [(str(name), " ".join(str(text).split())) for name, text in connection.execute(sql)]


def _tables_of_this_version() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for upgrade in _UPGRADES:
            connection.executescript(upgrade)
        return _tables(connection)


def _version(connection: sqlite3.Connection) -> int:
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        return int(cursor.fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction. IMMEDIATE: a read that turns into a write could not wait its turn."""
    crashpoints.METADATA_BEFORE_BEGIN.passed()
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        crashpoints.METADATA_BEFORE_COMMIT.passed()
        connection.execute("COMMIT")
        crashpoints.METADATA_AFTER_COMMIT.passed()
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def sqlite_errors(path: str) -> Iterator[None]:
    """SQLite's errors become the engine's."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except UnicodeDecodeError as error:  # from a name in the schema, or an error's own words
        raise MetadataDamagedError(path, problem=f"it cannot be used: {error}") from error


def _translated(error: sqlite3.DatabaseError, path: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return MetadataDamagedError(path, problem=str(error))
    if code in _AS_ERRNO:
        problem = OSError(_AS_ERRNO[code], str(error))
        return access_error(problem, path, "write to")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM):
        hint = "the disk may be full, failing or read-only, or memory short: see `aflow doctor`"
        return StoreAccessError(path, doing="use", problem=str(error), hint=hint)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailableError(
            f"{path} stayed locked for {BUSY_TIMEOUT_S:.0f} s",
            hint="another process holds it; if none should, end it",
        )
    return MetadataDamagedError(path, problem=f"it cannot be used: {error}")


_AS_ERRNO = {sqlite3.SQLITE_FULL: 28, sqlite3.SQLITE_READONLY: 30}
