"""Task groups whose error is raised as itself."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the first error of a task group as itself: callers know nothing of our groups.

    Groups in groups are looked into. An error that is no `Exception` comes before one that is, and
    the others are told in notes.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        first, *others = sorted(_leaves(group), key=lambda e: isinstance(e, Exception))
        for other in others:
            if other is not first and str(other) != str(first):
                first.add_note(f"beside it: {type(other).__name__}: {other}")
        raise first from first.__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
