"""Pickles with large buffers beside the stream, and classes of `__main__` that survive the run.

Without large buffers the bytes are the pickle itself, protocol 5. With them: magic "AFP1", u32
count, u64 length of the stream, count pairs of u64 offset and length, the stream, then each buffer
at its offset, a multiple of 64. All little-endian. Loading from a private mapping copies no buffer,
so a DataFrame or a model's weights cost what is touched.
"""

import io
import os
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from operator import attrgetter
from types import FunctionType
from typing import Any

from engine.errors import UnreadableValueError
from engine.stores.base import Buffer

OUT_OF_BAND_MIN_BYTES = 4096
ALIGNMENT = 64
BY_VALUE_MAX_BYTES = 1 << 20
"""A class whose code drags along more than this (a global table it uses) is stored by name only."""

_HEAD = struct.Struct("<4sIQ")
_MAGIC = b"AFP1"


def dump_pickle(value: object) -> tuple[Sequence[Buffer], int]:
    """Pickle a value.

    Returns:
        The parts whose concatenation is stored, and how many buffers of the value's own memory are
        among them.

    Raises:
        Exception: whatever the value's own pickling code raises.
    """
    buffers: list[memoryview] = []
    stream = _stream(value, buffers)
    if not buffers:
        return [stream], 0
    end = _HEAD.size + 16 * len(buffers) + len(stream)
    table: list[int] = []
    body: list[Buffer] = [stream]
    for buffer in buffers:
        padding = -end % ALIGNMENT
        table += (end + padding, buffer.nbytes)
        body += (bytes(padding), buffer)
        end += padding + buffer.nbytes
    head = _HEAD.pack(_MAGIC, len(buffers), len(stream))
    return [head + struct.pack(f"<{len(table)}Q", *table), *body], len(buffers)


def load_pickle(view: memoryview, *, has_buffers: bool) -> object:
    """Load what `dump_pickle` made. This can run code: the caller answers for the bytes.

    Raises:
        UnreadableValueError: the head is damaged, or a class cannot be imported here.
    """
    try:
        stream, buffers = _split(view) if has_buffers else (view, [])
        return pickle.loads(stream, buffers=buffers)  # noqa: S301  # see the docstring
    except struct.error as error:
        raise UnreadableValueError("pickle", problem="its head is damaged") from error
    except (ImportError, AttributeError) as error:
        raise UnreadableValueError(
            "pickle",
            problem=str(error),
            hint="its class must be importable here: add the directory of the flow's file to "
            "PYTHONPATH",
        ) from error


def _split(view: memoryview) -> tuple[memoryview, list[memoryview]]:
    magic, count, length = _HEAD.unpack_from(view)
    if magic != _MAGIC:
        raise struct.error
    table = struct.unpack_from(f"<{2 * count}Q", view, _HEAD.size)
    start = _HEAD.size + 16 * count
    spans = zip(table[::2], table[1::2], strict=True)
    return view[start : start + length], [view[at : at + size] for at, size in spans]


def _stream(value: object, buffers: list[memoryview]) -> bytes:
    """Pickle by name; again by value if that fails or names `__main__`, which a reader lacks."""

    def aside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        is_small = raw.nbytes < OUT_OF_BAND_MIN_BYTES
        if not is_small:
            buffers.append(raw)
        return is_small  # true keeps it in the stream

    try:
        stream = pickle.dumps(value, 5, buffer_callback=aside)
    except (pickle.PicklingError, AttributeError, TypeError):
        stream = None  # a lambda, a local class, a class whose module is not importable by name
    if stream is not None and b"__main__" not in stream:
        return stream
    buffers.clear()
    target = io.BytesIO()
    _by_value_pickler()(target, 5, buffer_callback=aside).dump(value)
    return target.getvalue()


@cache
def _by_value_pickler() -> Callable[..., pickle.Pickler]:
    cloudpickle = import_module("cloudpickle")  # 15 ms that few tasks need

    class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]  # untyped
        """cloudpickle's, with classes of the flow's own file by name as well as by value."""

        def reducer_override(self, obj: Any) -> Any:  # Any: pickle's own protocol types
            path = main_path()
            if path and isinstance(obj, type | FunctionType) and _is_of_main(obj):
                return restore_main, (path, obj.__qualname__, by_value(obj))
            return super().reducer_override(obj)

    def by_value(obj: object) -> bytes:
        try:
            data = bytes(cloudpickle.dumps(obj, 5))
        except Exception:  # noqa: BLE001  # a global that its code uses may raise anything
            return b""
        return data if len(data) <= BY_VALUE_MAX_BYTES else b""

    return ByValuePickler


def main_path() -> str | None:
    """The file that runs as `__main__`; None in a notebook and at a prompt."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.realpath(path) if isinstance(path, str) else None


def _is_of_main(obj: type | FunctionType) -> bool:
    if obj.__module__ != "__main__":
        return False
    try:
        return bool(attrgetter(obj.__qualname__)(sys.modules["__main__"]) is obj)
    except AttributeError:
        return False


def restore_main(path: str, qualname: str, by_value: bytes) -> object:
    """A class or function of a flow's file: the very one in its own process, a copy elsewhere.

    Pickles name this function, so its name and signature are part of the format.
    """
    if path == main_path():
        with suppress(AttributeError):  # the file has been edited since
            return attrgetter(qualname)(sys.modules["__main__"])
    if not by_value:
        raise AttributeError(f"{qualname!r} of {path} can only be loaded by that program")
    return pickle.loads(by_value)  # noqa: S301  # part of a pickle that is being loaded
