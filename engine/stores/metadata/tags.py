"""What tags a run may have. Pure."""

from collections.abc import Collection

from engine.errors import UsageError

TAG_MAX_BYTES = 256
TAGS_MAX = 100


def merged_tags(
    present: Collection[str], add: Collection[str], remove: Collection[str]
) -> tuple[str, ...]:
    """The tags after a change, old ones first, none twice.

    Raises:
        UsageError: a tag is empty, not printable or longer than 256 bytes, or there are over 100.
    """
    for tag in add:
        if not tag or not tag.isprintable() or len(tag.encode()) > TAG_MAX_BYTES:
            raise UsageError(
                f"{tag[:80]!r} cannot be a tag",
                hint=f"a tag is 1 to {TAG_MAX_BYTES} bytes of printable text",
            )
    gone = set(remove)
    tags = tuple(dict.fromkeys(tag for tag in (*present, *add) if tag not in gone))
    if len(tags) > TAGS_MAX:
        raise UsageError(f"a run can have {TAGS_MAX} tags, not {len(tags)}")
    return tags
