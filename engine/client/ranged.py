"""An array that stays in the object store: a slice of it moves only its own rows.

The digest of a blob says nothing of a part of it, so what a slice moves is checked by the object
store's checksums alone; what loads all of it is verified as any blob is.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

RANGED_MIN_BYTES = 64 << 20
"""A smaller array is loaded whole: one request, and it is in the cache for the next read."""

FetchRange = Callable[[int, int], bytes]
"""Bytes of the blob: from an offset, so many."""


class RangedArray:
    """Behaves as the array does, and loads all of it when more than rows is asked for.

    Args:
        meta: of its entry: dtype, shape, order "C".
        fetch: reads a range of its blob.
        load: loads all of it.
    """

    def __init__(
        self, meta: Mapping[str, Any], fetch: FetchRange, load: Callable[[], Any]
    ) -> None:  # Any: msgpack's values, and an array, whose library is optional
        self._numpy: Any = import_module("numpy")
        self.dtype = self._numpy.dtype(str(meta["dtype"]))
        self.shape = tuple(int(length) for length in meta["shape"])
        self._fetch = fetch
        self._load = load
        self._whole: Any = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(self._numpy.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        return int(self.size * self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        is_row = isinstance(first, int | self._numpy.integer) and type(first) is not bool
        if self._whole is not None or not (is_row or isinstance(first, slice)):
            return self.load()[key]
        rows: int | range = range(self.shape[0])[first]
        if isinstance(rows, int):
            part = self._rows(rows, rows + 1)[0]
            return part[tuple(rest)] if rest else part
        if not rows:
            return self._rows(0, 0)[(slice(None), *rest)]
        low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1])
        picked = self._rows(low, high + 1)[:: rows.step if rows.step > 0 else -1]
        if rows.step < -1:
            picked = picked[:: -rows.step]
        return picked[(slice(None), *rest)] if rest else picked

    def _rows(self, start: int, stop: int) -> Any:
        row_bytes = self.nbytes // self.shape[0]
        data = bytearray(self._fetch(start * row_bytes, (stop - start) * row_bytes))
        if len(data) != (stop - start) * row_bytes:
            return self.load()[start:stop]  # which tells what is wrong with the blob
        return self._numpy.frombuffer(data, self.dtype).reshape((stop - start, *self.shape[1:]))

    def load(self) -> Any:
        """The whole array, kept from now on.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreUnavailableError: it is not there as it was.
        """
        if self._whole is None:
            self._whole = self._load()
        return self._whole

    def __iter__(self) -> Iterator[Any]:
        return iter(self.load())  # not a request a row

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        whole = self.load()
        return self._numpy.array(whole, dtype) if copy else self._numpy.asarray(whole, dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.load(), name)

    def __repr__(self) -> str:
        return f"<{self.dtype} array of {self.shape} in the object store>"


def _operator(name: str) -> Callable[..., Any]:
    def operator(self: RangedArray, *others: Any) -> Any:
        return getattr(self.load(), name)(*others)

    return operator


_BOTH_WAYS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
)
_OTHERS = (
    *("lt", "le", "eq", "ne", "gt", "ge", "contains", "setitem"),
    *("neg", "pos", "abs", "invert", "bool", "int", "float", "complex", "index"),
)
# Python looks for operators on the class, past __getattr__. Those in place fall back to these.
for _name in (*_BOTH_WAYS, *(f"r{name}" for name in _BOTH_WAYS), *_OTHERS):
    setattr(RangedArray, f"__{_name}__", _operator(f"__{_name}__"))
RangedArray.__hash__ = None  # type: ignore[method-assign,assignment]  # as an array's


def is_ranged(serializer: str, size_bytes: int, codec: str | None, meta: Mapping[str, Any]) -> bool:
    """Whether a stored value is an array whose rows lie one after the other."""
    is_rows = meta.get("order", "C") == "C" and bool(meta.get("shape")) and meta["shape"][0] > 0
    return serializer == "numpy" and codec is None and size_bytes >= RANGED_MIN_BYTES and is_rows
