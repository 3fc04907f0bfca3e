"""Words for messages: lists of names, and the name that was probably meant."""

from collections.abc import Iterable

_SHOWN_MAX = 12


def listed(names: Iterable[str], *, last: str = "and") -> str:
    """Names as prose: "a", "a and b", "a, b and c"; a long list is cut. Empty for no names."""
    all_names = list(names)
    shown = all_names[:_SHOWN_MAX]
    if len(all_names) > _SHOWN_MAX:
        return f"{', '.join(shown)} and {len(all_names) - _SHOWN_MAX} more"
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name at the least edits from `word`, if it is near: a third of its length.

    Case counts half an edit's worth: names that differ in case alone are the nearest.
    """
    limit = max(1.0, len(word) / 3)
    ranked = sorted((_distance(word.lower(), k.lower()) + (k != word) * 0.5, k) for k in {*known})
    near = [k for d, k in ranked if d <= limit + 0.5]
    return near[0] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the closest known name, or None if none is near."""
    name = closest(word, known)
    return f"did you mean {name!r}?" if name is not None else None


def _distance(a: str, b: str) -> int:
    """Edits from a to b: insert, delete, replace, or swap two neighbours, one each."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
