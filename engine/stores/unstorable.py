"""Why a value cannot be pickled, and where inside it the culprit lies.

Only runs after pickling has failed: it pickles the parts of the value one by one and descends into
the first that fails. That is slow and does not matter; the path saves the user an hour.
"""

from collections.abc import Iterator, Mapping

from engine.stores.pickling import dump_pickle

DEPTH_MAX = 20
_KEY_MAX = 40


def find_culprit(value: object, path: str, error: Exception) -> tuple[str, str]:
    """Descend to the smallest part of `value` that cannot be pickled.

    Args:
        value: what could not be pickled.
        path: how the user reaches it, such as `self.model`.
        error: what pickling it raised.

    Returns:
        The path of the culprit, and what pickling it alone raised.
    """
    for _ in range(DEPTH_MAX):
        for step, part in _parts(value):
            below = _error_of(part)
            if below is not None:
                value, path, error = part, path + step, below
                break
        else:
            break
    return path, _describe(error)


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{error}" or type(error).__name__


def _error_of(value: object) -> Exception | None:
    try:
        dump_pickle(value)
    except Exception as error:  # noqa: BLE001  # pickling runs the value's own code
        return error
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"[{_short(key)}]", part
        for key in value:
            yield f" (the key {_short(key)})", key
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, set | frozenset):
        for part in value:
            yield f" (the element {_short(part)})", part
    yield from _attributes(value)


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, type):
        return
    fields = getattr(value, "__dict__", None)
    if isinstance(fields, dict):
        for name, part in fields.items():
            yield f".{name}", part
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)
    closure = getattr(value, "__closure__", None) or ()
    names = getattr(getattr(value, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, closure, strict=False):
        yield f" (its variable {name})", cell.cell_contents


def _short(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001  # a user's __repr__ may raise anything
        return type(key).__name__
    return text if len(text) <= _KEY_MAX else text[: _KEY_MAX - 1] + "…"
