"""What `aflow doctor` asks of a datastore in S3: may it be listed, written and read, and how."""

import asyncio
import secrets
import time

from msgspec import Struct

from engine.cli.clock import now_us
from engine.config import Config
from engine.errors import EngineError

SKEW_WARN_S = 60.0
"""By then a run of another machine may seem dead or alive wrongly; S3 refuses 15 minutes."""


class Asked(Struct, frozen=True):
    """`level` is ok, warning or error; `hint` says what to do."""

    level: str
    found: str
    hint: str = ""


def ask(config: Config) -> Asked:
    """Write, read and delete one object; nothing is left."""
    try:
        return asyncio.run(_ask(config))
    except EngineError as error:
        return Asked("error", error.message, error.hint or "")


async def _ask(config: Config) -> Asked:
    from engine.stores.s3.store import open_s3

    store = open_s3(config.datastore, config)
    key = f"doctor/{secrets.token_hex(8)}"
    began = time.monotonic()
    try:
        await store.check()
        first = await store.put(key, (b"first",), if_absent=True)
        second = await store.put(key, (b"second",), if_absent=True)
        held = await store.get(key)
        info = await store.stat(key)
        took_s = time.monotonic() - began
        await store.delete([key])
    finally:
        await store.aclose()
    if not first or second or held != b"first":
        return Asked(
            "error",
            f"{config.datastore} does not honour If-None-Match: two writers may both win",
            "use a server that does; AWS and SeaweedFS do",
        )
    skew_s = abs(now_us() - info.modified_us) / 1e6 if info else 0.0
    if skew_s > SKEW_WARN_S:
        return Asked(
            "warning",
            f"{config.datastore} can be written; its clock differs from this one by {skew_s:.0f} s",
            "set this machine's clock, by NTP",
        )
    return Asked("ok", f"{config.datastore} can be written; 5 requests took {took_s:.2f} s")
