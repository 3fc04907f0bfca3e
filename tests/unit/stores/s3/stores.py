"""Stores in an S3 that is in memory, for tests in virtual time."""

from engine.stores.s3.pacing import Pace, PacedSender
from engine.stores.s3.place import S3Place
from engine.stores.s3.requests import Sender
from engine.stores.s3.room import Room
from engine.stores.s3.store import S3BlobStore

MIB = 1 << 20


def store_over(sender: Sender, *, pace: Pace | None = None, room_mib: int = 256) -> S3BlobStore:
    place = S3Place("bucket", "prefix/")
    sender = PacedSender(sender, pace or Pace(), jitter=lambda: 0.5)
    return S3BlobStore(sender, place, Room(room_mib * MIB))
