"""Answers a shell that completes a word: verbs, runs, steps, tasks. Imports no click unless asked
for options, so that a key press costs little more than the start of Python.

Whatever goes wrong, the answer is that there is nothing to offer: a shell's line is no place for an
error.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from engine.config import Config, load
from engine.errors import EngineError

_RUN_VERBS = frozenset(("resume", "status", "logs", "dump", "du", "delete"))
_TAG_ACTIONS = ("add", "list", "remove", "replace")
_PACKAGE_ACTIONS = ("info", "list", "save")
_SHELLS = ("bash", "fish", "zsh")
_OFFERED_MAX = 100


def answer(words: Sequence[str]) -> int:
    """Print what the last of `words` could become, a line each; the words follow `aflow`."""
    with suppress(EngineError, OSError):
        current = words[-1] if words else ""
        for offer in islice(_offers(list(words[:-1]), current), _OFFERED_MAX):
            sys.stdout.write(offer + "\n")
    return 0


def _offers(before: list[str], current: str) -> Iterator[str]:
    verb = next((word for word in before if not word.startswith("-")), None)
    if current.startswith("-"):
        return _matching(_options(verb), current)
    if verb is None:
        return _matching(_verbs(), current)
    if verb in _RUN_VERBS or before[-1] in {"tag": _TAG_ACTIONS, "package": _PACKAGE_ACTIONS}.get(
        verb, ()
    ):
        return _runs(current)
    fixed = {
        "tag": _TAG_ACTIONS,
        "package": _PACKAGE_ACTIONS,
        "batch": ("list", "kill"),
        "completion": _SHELLS,
        "config": ("show",),
        "help": _topics(),
    }
    return _matching(fixed.get(verb, ()), current)


def _matching(names: Iterable[str], start: str) -> Iterator[str]:
    return (name for name in names if name.startswith(start))


def _verbs() -> Iterable[str]:
    from engine.cli.commands import VERBS

    return VERBS


def _topics() -> Iterable[str]:
    from engine.cli.help import TOPICS

    return (*TOPICS, *_verbs())


def _options(verb: str | None) -> Iterator[str]:
    import click

    from engine.cli.commands import VERBS, group, load_verb

    command = load_verb(verb) if verb and verb in VERBS else group()
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            yield from (opt for opt in (*param.opts, *param.secondary_opts) if opt[:2] == "--")


def _runs(current: str) -> Iterator[str]:
    config = load()
    run, slash, rest = current.partition("/")
    if not slash:
        yield from _matching(("@latest", "@latest-failed"), current)
        yield from _matching(_run_ids(config), current)
        return
    from engine.cli.references import find_run
    from engine.client.reader import Reader

    with Reader.open(config) as reader:
        found = find_run(reader, run)
        step, slash, _ = rest.partition("/")
        if not slash:
            names = (f"{run}/{name}" for name in reader.steps(found.flow, found.run_id))
        else:
            tasks = reader.tasks(found.flow, found.run_id, step)
            names = (f"{run}/{step}/{record.task_id}" for record in tasks)
        yield from _matching(names, current)


def _run_ids(config: Config) -> Iterator[str]:
    """Run ids, newest first, read off the directory: they sort by time."""
    root = os.path.join(config.datastore, "runs")
    found: list[str] = []
    with suppress(OSError):
        for flow in os.listdir(root):
            found += os.listdir(os.path.join(root, flow))
    return iter(sorted(found, reverse=True))
