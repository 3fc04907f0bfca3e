"""Plugins by entry point: found by (group, name), loaded one by one, a failure explained.

`importlib.metadata` reads every distribution on the path (tens of ms), so it is asked only for a
name that is not among the parts that ship with the engine.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load(group: str, name: str, *, shipped: Mapping[str, str] | None = None) -> Any:
    """Import the object that `name` stands for in `group`.

    Args:
        group: an entry point group, such as "aflow.executors".
        name: what the user wrote.
        shipped: names of the engine's own parts, to "module:attribute".

    Returns:
        Any, because only the caller knows what its group holds.

    Raises:
        PluginError: nothing has this name, two distributions have it, or importing it failed.
    """
    if shipped and name in shipped:
        return _import(group, name, shipped[name])
    found = [e for e in _entry_points(group) if e.name == name]
    values = sorted({e.value for e in found})
    if len(values) > 1:
        raise PluginError(
            f"{group} {name!r} is defined more than once: {', '.join(values)}",
            hint="uninstall one of the distributions that define it",
        )
    if not values:
        raise _unknown(group, name, [*(shipped or ()), *(e.name for e in _entry_points(group))])
    return _import(group, name, values[0])


def names(group: str, *, shipped: Mapping[str, str] | None = None) -> list[str]:
    """Every name of `group`, sorted; imports none of them."""
    return sorted({*(shipped or ()), *(e.name for e in _entry_points(group))})


def _entry_points(group: str) -> "list[EntryPoint]":
    from importlib.metadata import entry_points

    return list(entry_points(group=group))


def _unknown(group: str, name: str, known: list[str]) -> PluginError:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    there = ", ".join(sorted(set(known))) or "none"
    hint = f"did you mean {close[0]!r}?" if close else f"installed: {there}"
    return PluginError(f"there is no {group} named {name!r}", hint=hint)


def _import(group: str, name: str, target: str) -> Any:  # Any: see `load`
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except Exception as error:  # a plugin's import may raise anything
        raise PluginError(
            f"{group} {name!r} ({target}) cannot be loaded: {type(error).__name__}: {error}",
            hint="reinstall the distribution that defines it, or choose another",
        ) from error
    return found
