"""docs/PERFORMANCE.md as sections, each written by one command and kept by the others. Pure.

A section begins with a line `<!-- section: NAME -->` and ends where the next one begins.
"""

import re

_MARK = re.compile(r"^<!-- section: ([\w-]+) -->\n", re.MULTILINE)
ORDER = ("flows", "s3")


def with_section(page: str, name: str, text: str) -> str:
    """`page`, in which section `name` is `text`; the others stay as they are.

    Raises:
        ValueError: `name` is none of ORDER, or `page` has text that is in no section.
    """
    stray, *found = _MARK.split(page)
    if name not in ORDER or stray.strip():
        raise ValueError(f"{name!r} is none of {ORDER}, or text is in no section: {stray[:80]!r}")
    sections = dict(zip(found[::2], found[1::2], strict=True))
    sections[name] = text
    parts = [
        f"<!-- section: {key} -->\n{sections[key].strip()}\n" for key in ORDER if key in sections
    ]
    return "\n".join(parts)
