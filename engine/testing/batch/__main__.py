"""`python -m engine.testing.batch`: serve the emulator, and all else of AWS that moto has.

Prints one line of JSON when it answers: {"endpoint_url": ..., "pid": ...}. Ends on SIGTERM, SIGINT,
and with its parent if that was asked for; no job outlives it.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import uuid
from pathlib import Path

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from engine.errors import ConfigError, EngineError
from engine.testing.batch import fleet as fleets
from engine.testing.batch.account import Account
from engine.testing.batch.api import BatchApi
from engine.testing.batch.capacity import Capacity
from engine.testing.batch.emulator import Clock, Emulator
from engine.testing.batch.faults import Plan, Plans, read_plan
from engine.testing.batch.limits import RATE_PER_S, TokenBucket
from engine.testing.batch.podman import PodmanRunner
from engine.testing.batch.processes import ProcessRunner
from engine.testing.keys import read_keys

RUNNERS = {"process": ProcessRunner, "podman": PodmanRunner}


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        plan = read_plan(Path(options.faults).read_bytes()) if options.faults else Plan()
        variables = dict(_pair(text) for text in options.env)
        keys = read_keys(Path(options.keys)) if options.keys else None
        if options.runner == "podman" and not shutil.which("podman"):
            raise ConfigError("there is no podman", hint="apt-get install podman")
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if keys:
        variables["AWS_ACCESS_KEY_ID"] = keys.access_key
        variables["AWS_SECRET_ACCESS_KEY"] = keys.secret_key
    asyncio.run(_serve(options, plan, variables))
    return 0


class _Quiet(MotoRequestHandler):
    """A line for every request would fill disks."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


async def _serve(options: argparse.Namespace, plan: Plan, variables: dict[str, str]) -> None:
    account, clock = Account(options.region), Clock()
    settings = fleets.Settings(delay_s=options.delay, time_scale=options.time_scale)
    fleet = fleets.Fleet(settings, Capacity(account.environments), _new_id, Plans({"": plan}))
    runner = RUNNERS[options.runner](variables, account.places)
    emulator = Emulator(fleet, account, runner, clock)
    moto = DomainDispatcherApplication(create_backend_app)
    access_key = variables["AWS_ACCESS_KEY_ID"] if options.keys else None
    api = BatchApi(emulator, moto, TokenBucket(options.rate), access_key)
    server = make_server("127.0.0.1", options.port, api, threaded=True, request_handler=_Quiet)
    os.environ["MOTO_PORT"] = str(server.server_port)
    endpoint_url = f"http://127.0.0.1:{server.server_port}"
    variables.setdefault("AWS_ENDPOINT_URL", endpoint_url)
    if options.queue:
        account.make_queue(options.queue, vcpus=options.vcpus, no_op_s=options.no_op)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    print(json.dumps({"endpoint_url": endpoint_url, "pid": os.getpid()}), flush=True)  # noqa: T201
    await emulator.serve(stop)
    # Not server.shutdown(): that waits for the next of its polls.


def _new_id() -> str:
    return str(uuid.uuid4())


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m engine.testing.batch", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=0, help="on 127.0.0.1; 0 takes one that is free")
    add("--runner", choices=sorted(RUNNERS), default="process", help="what a container becomes")
    add("--region", default="us-east-1")
    add("--queue", help="make a queue of this name, with a compute environment and roles")
    add("--vcpus", type=int, default=256, help="of that compute environment")
    add(
        "--no-op", type=float, metavar="S", help="jobs of that queue run nothing and take S seconds"
    )
    add("--delay", type=float, default=0.05, metavar="S", help="seconds between states")
    add("--time-scale", type=float, default=1.0, help="time-outs and graces take this share")
    add("--rate", type=float, default=RATE_PER_S, help="requests of Batch a second")
    add("--faults", metavar="FILE", help="a plan of faults, JSON")
    add("--keys", metavar="FILE", help="a file of keys: jobs get them, and only they ask for jobs")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of every job")
    return parser


if __name__ == "__main__":
    sys.exit(main())
