"""Values <-> bytes. A serializer is chosen by the value's type and recorded by its name.

Names on read are an allow-list: json, bytes, text, numpy, arrow, pickle. Large arrays are handed on
as the memory they lie in and come back as views of a private mapping, so a 1 GiB array is neither
copied nor read twice. Neither numpy nor pyarrow is imported here: a value of theirs can only exist
when its module is loaded, and most tasks have none.

json is used where it gives back the very same value; a tuple, a NaN, an int as key or a list that
appears twice goes through pickle, protocol 5, with large buffers beside the stream.
"""

import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import NoneType
from typing import Any, Protocol

from msgspec import Struct, field

from engine.errors import StoreError, UnreadableValueError, UnstorableValueError
from engine.stores.base import Buffer
from engine.stores.pickling import dump_pickle, load_pickle
from engine.stores.unstorable import find_culprit

PLAIN_NODES_MAX = 256
"""Values inside a container that json is tried for; the check is Python, 0.1 us each."""

_PLAIN_DEPTH_MAX = 64
_INT_BITS_MAX = 4096  # well under the 4,300 digits that Python converts to text and back
_NUMPY_KINDS = frozenset("biufcmMSU")
_SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # in C; see `_decoded`
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Serialized(Struct, frozen=True):
    """A value as bytes: the concatenation of `parts`, which may be the value's own memory.

    `is_mappable` says that reading it in place pays, so it must not be compressed.
    """

    serializer: str
    parts: Sequence[Buffer]
    size_bytes: int
    meta: Mapping[str, Any] = field(default_factory=dict)  # Any: plain msgpack values
    is_mappable: bool = False


class Serializer(Protocol):
    """`dump` answers None for a value that it would not give back as it was."""

    def dump(self, value: object) -> Serialized | None: ...

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:  # Any: as in Serialized
        """`view` is private and writable; the value may keep it."""
        ...


def serialize(value: object, *, artifact: str, step: str) -> Serialized:
    """Turn a value into bytes.

    Args:
        value: read in place; it must not change until the bytes are written.
        artifact: its name, for the error.
        step: the step's name, for the error.

    Raises:
        UnstorableValueError: it cannot be pickled; the error leads to the culprit inside it.
    """
    chosen = _choose(type(value))
    if chosen is not None:
        done = chosen.dump(value)
        if done is not None:
            return done
    try:
        return _PICKLE.dump(value)
    except Exception as error:  # pickling runs the value's own code, which may raise anything
        path, problem = find_culprit(value, f"self.{artifact}", error)
        raise UnstorableValueError(artifact, step=step, path=path, problem=problem) from error


def deserialize(
    serializer: str, view: memoryview, meta: Mapping[str, Any], *, allow_pickle: bool = True
) -> object:  # Any: plain msgpack values
    """Turn bytes that `serialize` made, in private writable memory, back into the value.

    Args:
        serializer: the recorded name.
        view: the bytes; array values stay views of it.
        meta: as recorded.
        allow_pickle: False refuses what could run code.

    Raises:
        StoreError: the name is not on the allow-list, or pickle is refused.
        UnreadableValueError: the bytes do not fit the description, or the value's class is missing.
    """
    known = _BY_NAME.get(serializer)
    if known is None:
        raise StoreError(
            f"values of serializer {serializer!r} cannot be read by this aflow",
            hint="use the aflow that wrote it, or a later one",
        )
    if known is _PICKLE and not allow_pickle:
        raise StoreError(
            "the value is a pickle, and loading a pickle can run code",
            hint="load it with the client, if you trust what wrote it",
        )
    return known.load(view, meta)


def _choose(kind: type) -> "Serializer | None":
    chosen = _BY_TYPE.get(kind)
    if chosen is not None:
        return chosen
    module = kind.__module__
    if module == "numpy" and kind.__qualname__ == "ndarray":
        return _NUMPY
    if module == "pyarrow.lib" and kind.__qualname__ in _ARROW_KINDS:
        return _ARROW
    return None


# -- json ---------------------------------------------------------------------------------------


class _Json:
    def dump(self, value: object) -> Serialized | None:
        if not is_plain(value):
            return None
        try:
            # An encoder costs 1.5 us to set up, and a number's JSON is its repr.
            kind = type(value)
            data = (repr(value) if kind is int or kind is float else _ENCODE(value)).encode()
        except UnicodeEncodeError:  # a lone surrogate
            return None
        return Serialized("json", (data,), len(data))

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:
        try:
            return _decoded(str(view, "utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise UnreadableValueError("json", problem=str(error)) from error


def _decoded(text: str) -> object:
    """`json.loads` of what `dump` wrote, without its Python: each of a task's calls costs pages."""
    try:
        value, end = _SCAN(text, 0)
    except StopIteration as error:
        raise ValueError("no JSON") from error
    if end != len(text):
        raise ValueError(f"{len(text) - end} characters too many")
    return value


def is_plain(value: object) -> bool:
    """Whether json gives back an equal value of the same types that shares nothing it did not."""
    seen: set[int] = set()
    left = PLAIN_NODES_MAX
    level: list[object] = [value]
    for _ in range(_PLAIN_DEPTH_MAX):
        below: list[object] = []
        for node in level:
            kind = type(node)
            if kind is list or kind is dict:
                left -= len(node)  # type: ignore[arg-type]  # exact types are known here
                if left < 0 or id(node) in seen:
                    return False
                seen.add(id(node))
                if not _add_children(node, below):
                    return False
            elif not _is_plain_scalar(node, kind):
                return False
        if not below:
            return True
        level = below
    return False


def _add_children(node: object, below: list[object]) -> bool:
    if isinstance(node, dict):
        if any(type(key) is not str for key in node):
            return False
        below.extend(node.values())
    elif isinstance(node, list):
        below.extend(node)
    return True


def _is_plain_scalar(value: object, kind: type) -> bool:
    if kind is int:
        return bool(value.bit_length() <= _INT_BITS_MAX)  # type: ignore[attr-defined]
    if kind is float:
        return bool(value - value == 0)  # type: ignore[operator]  # neither NaN nor infinite
    return kind is str or kind is bool or kind is NoneType


# -- bytes --------------------------------------------------------------------------------------


class _Bytes:
    def dump(self, value: object) -> Serialized | None:
        if not isinstance(value, bytes):
            return None
        return Serialized("bytes", (value,), len(value))

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:
        return bytes(view)


class _Text:
    """A file's text in the encoding that it had; text that a step makes is json."""

    def dump(self, value: object) -> Serialized | None:
        return None

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:
        try:
            return str(view, str(meta["encoding"]))
        except (LookupError, ValueError) as error:
            raise UnreadableValueError("str", problem=str(error)) from error


# -- numpy --------------------------------------------------------------------------------------


class _Numpy:
    """The elements in C or Fortran order; numbers, times and fixed-width text only."""

    def dump(self, value: Any) -> Serialized | None:  # Any: numpy is optional
        dtype = value.dtype
        if dtype.kind not in _NUMPY_KINDS or dtype.metadata or dtype.str[0] not in "<>|":
            return None
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        meta = {"dtype": dtype.str, "shape": list(value.shape), "order": order}
        if value.nbytes == 0:
            return Serialized("numpy", (b"",), 0, meta)
        flat = value.T if order == "F" else value
        if not flat.flags.c_contiguous:
            flat = flat.copy(order="C")
        view = memoryview(flat.reshape(-1).view("u1"))
        return Serialized("numpy", (view,), view.nbytes, meta, is_mappable=True)

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:
        numpy = import_module("numpy")  # only a reader of arrays pays for it
        try:
            dtype = numpy.dtype(str(meta["dtype"]))
            if dtype.kind not in _NUMPY_KINDS:
                raise ValueError(f"dtype {dtype} is not stored raw")
            shape = tuple(meta["shape"])
            array = numpy.ndarray(shape, dtype, buffer=view if view.nbytes else None)
            if array.nbytes != view.nbytes:
                raise ValueError(f"{view.nbytes:,} bytes do not make {shape} of {dtype}")
            if meta["order"] == "F":
                array = array.reshape(shape[::-1]).T
        except (TypeError, ValueError, KeyError) as error:
            raise UnreadableValueError("numpy.ndarray", problem=str(error)) from error
        return array


# -- arrow --------------------------------------------------------------------------------------

_ARROW_KINDS = frozenset({"Table", "RecordBatch"})


class _Parts(io.RawIOBase):
    """Collects what an Arrow writer writes, without copying its buffers."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: pyarrow hands over bytes or its own Buffer
        self.parts.append(memoryview(data))
        return len(data)


class _Arrow:
    """The Arrow IPC stream."""

    def dump(self, value: Any) -> Serialized | None:  # Any: pyarrow is optional
        ipc = import_module("pyarrow.ipc")
        sink = _Parts()
        with ipc.new_stream(sink, value.schema) as writer:
            writer.write(value)
        size = sum(len(part) for part in sink.parts)
        return Serialized(
            "arrow", sink.parts, size, {"kind": type(value).__qualname__}, is_mappable=True
        )

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:
        pyarrow = import_module("pyarrow")
        ipc = import_module("pyarrow.ipc")
        try:
            with ipc.open_stream(pyarrow.py_buffer(view)) as reader:
                if meta.get("kind") == "RecordBatch":
                    return reader.read_next_batch()
                return reader.read_all()
        except (pyarrow.ArrowException, StopIteration, OSError) as error:
            raise UnreadableValueError("arrow table", problem=str(error)) from error


# -- pickle -------------------------------------------------------------------------------------


class _Pickle:
    def dump(self, value: object) -> Serialized:
        parts, buffers = dump_pickle(value)
        size = sum(memoryview(part).nbytes for part in parts)
        if not buffers:
            return Serialized("pickle", parts, size)
        return Serialized("pickle", parts, size, {"buffers": buffers}, is_mappable=True)

    def load(self, view: memoryview, meta: Mapping[str, Any]) -> object:
        return load_pickle(view, has_buffers=bool(meta.get("buffers")))


_NUMPY = _Numpy()
_ARROW = _Arrow()
_PICKLE = _Pickle()
_JSON = _Json()
_BYTES = _Bytes()
_TEXT = _Text()
_BY_TYPE: Mapping[type, Serializer] = {
    bytes: _BYTES,
    **dict.fromkeys((NoneType, bool, int, float, str, list, dict), _JSON),
}
_BY_NAME: Mapping[str, Serializer] = {
    "json": _JSON,
    "bytes": _BYTES,
    "text": _TEXT,
    "numpy": _NUMPY,
    "arrow": _ARROW,
    "pickle": _PICKLE,
}
