"""A short text of a value, made when it is saved, so that listings need not load it.

Never longer than PREVIEW_MAX characters, never more work than a few dozen steps whatever the size
of the value, and never an error: a user's `__repr__` is only asked when the value is small.
"""

from collections.abc import Mapping
from itertools import islice

PREVIEW_MAX = 120
REPR_MAX_BYTES = 1024
"""Objects whose serialized form is larger are not asked for their `__repr__`."""

_ITEMS_SHOWN = 6
_ITEM_MAX = 24
_INT_BITS_SHOWN = 512
_CONTAINERS: Mapping[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
    dict: ("{", "}"),
}


def preview(value: object, size_bytes: int) -> str:
    """Describe a value in one printable line.

    Args:
        value: anything.
        size_bytes: its serialized size, which tells whether its own `__repr__` is cheap.
    """
    try:
        text = _describe(value, size_bytes)
    except Exception:  # noqa: BLE001  # a user's __repr__ or __len__ may raise anything
        text = f"<{type_name(value)}>"
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:PREVIEW_MAX])
    return text if len(text) <= PREVIEW_MAX else text[: PREVIEW_MAX - 1] + "…"


def type_name(value: object) -> str:
    """`module.qualname` of the value's type; builtins without their module."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _describe(value: object, size_bytes: int) -> str:
    kind = type(value)
    if kind in _CONTAINERS:
        return _container(value, size_bytes)
    scalar = _scalar(value, PREVIEW_MAX)
    if scalar is not None:
        return scalar
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):  # numpy, pandas, pyarrow, torch: the shape says more than values
        of = f" of {value.dtype}" if hasattr(value, "dtype") else ""
        return f"{kind.__qualname__} {' x '.join(map(str, shape)) or 'scalar'}{of}"
    if size_bytes <= REPR_MAX_BYTES:
        return repr(value)
    return f"<{type_name(value)}>"


def _scalar(value: object, longest: int) -> str | None:
    """The repr of a builtin scalar, cut before it is made; None for anything else."""
    if isinstance(value, str | bytes) and type(value) in (str, bytes):
        return repr(value) if len(value) <= longest else repr(value[:longest])[:-1] + "…"
    if type(value) is int and value.bit_length() > _INT_BITS_SHOWN:
        return f"<int of {value.bit_length():,} bits>"
    if value is None or type(value) in (bool, int, float, complex):
        return repr(value)
    return None


def _container(value: object, size_bytes: int) -> str:
    left, right = _CONTAINERS[type(value)]
    length = len(value)  # type: ignore[arg-type]  # one of the exact types of _CONTAINERS
    if isinstance(value, dict):
        shown = [f"{_item(k)}: {_item(v)}" for k, v in islice(value.items(), _ITEMS_SHOWN)]
    else:
        shown = [_item(v) for v in islice(value, _ITEMS_SHOWN)]  # type: ignore[call-overload]
    text = ", ".join(shown) + (", …" if length > _ITEMS_SHOWN else "")
    if isinstance(value, tuple) and length == 1:
        text += ","
    if isinstance(value, set | frozenset) and not length:
        return f"{type(value).__name__}()"
    count = f" ({length:,} items)" if length > _ITEMS_SHOWN else ""
    room = PREVIEW_MAX - len(count) - 3
    if len(text) > room:
        text = text[:room] + "…"
    return f"{left}{text}{right}{count}"


def _item(value: object) -> str:
    scalar = _scalar(value, _ITEM_MAX)
    if scalar is not None:
        return scalar
    kind = type(value)
    if kind in _CONTAINERS:
        left, right = _CONTAINERS[kind]
        return f"{left}…{right}" if value else f"{left}{right}"
    return f"<{kind.__qualname__}>"
