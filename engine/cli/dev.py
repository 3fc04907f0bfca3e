"""`aflow dev up|down|status|env`: S3 and AWS Batch on this machine, to try things on."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import click
from msgspec.structs import asdict

from engine.cli import devstack
from engine.cli.devstack import DevStack
from engine.cli.options import session, verb
from engine.errors import NotFoundError

_NEXT = 'eval "$(aflow dev env)"'


def _folder_option(function: Callable[..., object]) -> Callable[..., object]:
    decorate = click.option(
        "--folder",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the servers keep what they store; default: in the cache.",
    )
    return decorate(function)


def _folder(given: Path | None) -> Path:
    return (given or Path(session().config.cache_dir) / "dev").absolute()


@verb("up", examples="aflow dev up\naflow dev up --vcpus 8", json=True)
@_folder_option
@click.option(
    "--vcpus",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="How many vCPUs jobs have at once; more wait.",
)
@click.option(
    "--runner",
    type=click.Choice(["process", "podman"]),
    default="process",
    show_default=True,
    help="What a job's container becomes.",
)
def up(folder: Path | None, vcpus: int, runner: str) -> None:
    """Start S3 and AWS Batch on this machine, in the background.

    Where they run already, say so.
    """
    options = ["--vcpus", str(vcpus), "--runner", runner]
    stack, started = devstack.up(_folder(folder), options=options)
    _tell(stack, "started" if started else "running")


@verb("down", examples="aflow dev down\naflow dev down --delete", json=True)
@_folder_option
@click.option("--delete", is_flag=True, help="Remove what was stored, too.")
def down(folder: Path | None, delete: bool) -> None:
    """End what `aflow dev up` started.

    What is stored in S3 stays, and is there again after the next `up`; jobs do not.
    """
    stack = devstack.down(_folder(folder))
    if delete:
        devstack.delete(_folder(folder))
    if session().json:
        print(json.dumps({"schema": "aflow/dev/1", "state": "down", "was_running": bool(stack)}))
    else:
        print("aflow dev: ended" if stack else "aflow dev: nothing was running")


@verb("status", examples="aflow dev status\naflow dev status --json", json=True)
@_folder_option
def status(folder: Path | None) -> None:
    """Say what runs."""
    stack = devstack.running(_folder(folder))
    if stack:
        _tell(stack, "running")
    elif session().json:
        print(json.dumps({"schema": "aflow/dev/1", "state": "down"}))
    else:
        print("aflow dev: nothing is running")


@verb("env", examples=f"{_NEXT}\naflow dev env --json", json=True)
@_folder_option
def env(folder: Path | None) -> None:
    """Print the variables that lead aflow, and AWS's own tools, to what runs."""
    stack = devstack.running(_folder(folder))
    if stack is None:
        raise NotFoundError("no servers of `aflow dev` are running", hint="aflow dev up")
    if session().json:
        print(json.dumps(stack.variables))
        return
    for name, value in stack.variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _tell(stack: DevStack, state: str) -> None:
    if session().json:
        told = {**asdict(stack), "servers": [asdict(each) for each in stack.servers]}
        print(json.dumps({"schema": "aflow/dev/1", "state": state, **told}))
        return
    print(f"aflow dev: {state} (process {stack.pid}, in {stack.folder})")
    for server in stack.servers:
        print(f"  {server.name:6} {server.endpoint_url}  {server.program}")
    print(f"  bucket s3://{stack.bucket}   queue {stack.variables['AFLOW_BATCH_QUEUE']}")
    print(f"  to use them: {_NEXT}")


command = click.Group(
    "dev",
    help="Have S3 and AWS Batch on this machine, to try things on.",
    commands=dict[str, click.Command](up=up, down=down, status=status, env=env),
)
