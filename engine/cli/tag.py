"""`aflow tag add|remove|replace|list`: a run's tags."""

import json
from collections.abc import Callable, Iterable

import click

from engine.cli.escapes import safe
from engine.cli.options import Session, session, verb
from engine.cli.references import find_run
from engine.client.reader import Reader
from engine.client.runs import change_tags
from engine.errors import UsageError

Changes = Callable[[list[str]], tuple[Iterable[str], Iterable[str]]]
"""Turns the words after the run into the tags to remove and the tags to add."""

_RUN_ID = click.option("--run-id", metavar="RUN", help="The run, if it is not the first word.")
_WORDS = click.argument("words", nargs=-1, metavar="[RUN] TAG...")


def _with_run(run: str | None, words: list[str], changes: Changes) -> None:
    """Change the tags of the run that is meant, and tell those that it has then."""
    now = session()
    run = run or _first(now, words)
    with Reader.open(now.config) as reader:
        record = find_run(reader, run, flow=now.flow_name)
        record = change_tags(reader, record, *changes(words))
    pathspec, tags = f"{record.flow}/{record.run_id}", sorted(record.tags)
    if now.json:
        print(json.dumps({"schema": "aflow/tags/1", "run": pathspec, "tags": tags}))
    else:
        print(f"{pathspec}: {safe(', '.join(tags)) or 'no tags'}")


def _first(now: Session, words: list[str]) -> str:
    """The run in front of the tags; Metaflow's commands of a flow mean its latest."""
    if now.flow_class is not None:
        return "@latest"
    if not words:
        raise UsageError("no run is named", hint="aflow tag add RUN TAG...")
    return words.pop(0)


def _some(words: list[str]) -> list[str]:
    if not words:
        raise UsageError("no tag is named", hint="aflow tag add RUN TAG...")
    return words


@verb("add", examples="aflow tag add @latest nightly good", json=True)
@_RUN_ID
@_WORDS
def add(run_id: str | None, words: tuple[str, ...]) -> None:
    """Add tags to RUN."""
    _with_run(run_id, list(words), lambda tags: ((), _some(tags)))


@verb("remove", examples="aflow tag remove @latest nightly", json=True)
@_RUN_ID
@_WORDS
def remove(run_id: str | None, words: tuple[str, ...]) -> None:
    """Remove tags from RUN. A tag that it does not have is no error."""
    _with_run(run_id, list(words), lambda tags: (_some(tags), ()))


@verb("replace", examples="aflow tag replace @latest --remove draft --add good", json=True)
@_RUN_ID
@click.argument("words", nargs=-1, metavar="[RUN]")
@click.option("--add", "added", multiple=True, metavar="TAG")
@click.option("--remove", "removed", multiple=True, metavar="TAG")
def replace(
    run_id: str | None, words: tuple[str, ...], added: tuple[str, ...], removed: tuple[str, ...]
) -> None:
    """Remove tags from RUN and add others, in one step."""

    def changes(rest: list[str]) -> tuple[Iterable[str], Iterable[str]]:
        if rest:
            raise UsageError(f"{rest[0]!r} is neither --add nor --remove")
        return removed, added

    _with_run(run_id, list(words), changes)


@verb("list", examples="aflow tag list @latest\naflow tag list @latest --system", json=True)
@_RUN_ID
@click.argument("words", nargs=-1, metavar="[RUN]")
@click.option("--system", is_flag=True, help="System tags as well.")
def list_(run_id: str | None, words: tuple[str, ...], system: bool) -> None:
    """List RUN's tags, one a line."""
    now = session()
    with Reader.open(now.config) as reader:
        run = run_id or (words[0] if words else "@latest")
        record = find_run(reader, run, flow=now.flow_name)
    tags = sorted([*record.tags, *(record.system_tags if system else ())])
    if now.json:
        fields = {"run": f"{record.flow}/{record.run_id}", "tags": tags}
        print(json.dumps({"schema": "aflow/tags/1", **fields}))
    else:
        for tag in tags:
            print(safe(tag))


class _Actions(click.Group):
    """The actions, with a suggestion for a slip."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(
                f"there is no action {args[0]!r}", hint=f"one of {', '.join(self.commands)}"
            )
        return super().resolve_command(ctx, args)


command = _Actions(
    "tag",
    help="Add, remove and list a run's tags. Tags can be changed at any time, also while it runs.",
    commands=dict[str, click.Command](add=add, remove=remove, replace=replace, list=list_),
)
