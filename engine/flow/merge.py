"""merge_artifacts: which artifacts a join passes on. Compares digests; loads nothing."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from engine.errors import (
    MergeError,
    MissingInMergeArtifactsException,
    UnhandledInMergeArtifactsException,
)

if TYPE_CHECKING:
    from engine.flow.spec import ArtifactSource, TaskBinding


def merged(
    binding: "TaskBinding",
    sources: Iterable["ArtifactSource"],
    *,
    own: Collection[str],
    include: Collection[str],
    exclude: Collection[str],
) -> dict[str, "ArtifactSource"]:
    """The artifacts to pass on, each with the first input that has it.

    Args:
        binding: the join's.
        sources: the inputs', each read once, in turn.
        own: names that the join has already: these win, and no conflict about them counts.
        include: if any, the only names to look at.
        exclude: names not to look at.

    Raises:
        MergeError: not a join, or both `include` and `exclude` are given.
        UnhandledInMergeArtifactsException: inputs differ about a name.
        MissingInMergeArtifactsException: no input has a name of `include`, nor the join.
    """
    step = binding.step
    if not binding.is_join:
        raise MergeError(
            f"merge_artifacts is for joins; step {step!r} is not one",
            hint="other steps inherit every artifact of the step before",
        )
    if include and exclude:
        raise MergeError(
            f"step {step!r} calls merge_artifacts with both include= and exclude=",
            hint="give one of them",
        )
    chosen: dict[str, tuple[ArtifactSource, str]] = {}
    unresolved: set[str] = set()
    for source in sources:
        for name in source.names():
            if name in own or name in exclude or (include and name not in include):
                continue
            sha = source.sha(name)
            if chosen.setdefault(name, (source, sha))[1] != sha:
                unresolved.add(name)
    if unresolved:
        raise UnhandledInMergeArtifactsException(step, sorted(unresolved))
    missing = [name for name in include if name not in chosen and name not in own]
    if missing:
        raise MissingInMergeArtifactsException(step, missing)
    return {name: source for name, (source, _) in chosen.items()}
