"""AWS on a laptop, as `aflow dev up` starts it: S3 and Batch on loopback, until told to end.

`python -m engine.testing.dev FOLDER ...` prints one line of JSON when all is ready, the same that
it keeps in FOLDER/dev.json, and ends on SIGTERM. The servers end with it, also when it is killed:
they watch a lock that it holds. S3 is SeaweedFS where that is installed, and its objects stay in
the folder; else it is moto's, which keeps them in memory.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from engine.aws.sessions import AwsSession
from engine.cli.devstack import DevServer, DevStack, birth_of
from engine.config import Config
from engine.errors import EngineError
from engine.testing.keys import make_keys, write_private
from engine.testing.servers import REGION, ServerAddress, shared_server, wait_for_servers

NAME = "aflow-dev"
"""Of the bucket, the queue, the compute environment and the beginning of the roles' names."""


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    folder = Path(options.folder).resolve()
    signal.signal(signal.SIGTERM, _leave)
    _forget_other_accounts()
    state = folder / "dev.json"
    try:
        with _servers(folder, options) as stack:
            asyncio.run(_make_bucket(stack))
            text = msgspec.json.encode(stack)
            write_private(state, text)
            with contextlib.suppress(BrokenPipeError):  # whoever started this has given up
                print(text.decode(), flush=True)  # noqa: T201
            while True:
                signal.pause()
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except SystemExit:
        return 0
    finally:
        state.unlink(missing_ok=True)
        wait_for_servers()


def _leave(number: int, frame: object) -> None:
    raise SystemExit


def _forget_other_accounts() -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AFLOW_"))]:
        del os.environ[name]
    # A profile of the user's would bring settings of real accounts.
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)


@contextmanager
def _servers(folder: Path, options: argparse.Namespace) -> Iterator[DevStack]:
    with ExitStack() as stack:
        s3: ServerAddress | None = None
        keys_file = str(folder / "keys.json")
        keys = make_keys(Path(keys_file))
        # Containers of one machine share its disk, so that they unpack aflow once.
        given = {"AWS_DEFAULT_REGION": REGION}
        of_jobs = {"AFLOWJOB_CACHE": str(folder / "batch.data")} if _are_processes(options) else {}
        if _has_seaweedfs():
            server = shared_server("seaweedfs", folder, options=[keys_file], keep=True)
            s3 = stack.enter_context(server)
            given["AWS_ENDPOINT_URL_S3"] = s3.endpoint_url
        words = ["--queue", NAME, "--vcpus", str(options.vcpus), "--runner", options.runner]
        words += ["--keys", keys_file]
        for name, value in (given | of_jobs).items():
            words += ["--env", f"{name}={value}"]
        batch = stack.enter_context(shared_server("batch", folder, options=words))
        given["AWS_ACCESS_KEY_ID"] = keys.access_key
        given["AWS_SECRET_ACCESS_KEY"] = keys.secret_key
        os.environ.update(given, AWS_ENDPOINT_URL=batch.endpoint_url)
        yield DevStack(
            pid=os.getpid(),
            birth=birth_of(os.getpid()) or "",
            folder=str(folder),
            servers=(
                DevServer("s3", (s3 or batch).endpoint_url, "SeaweedFS" if s3 else "moto"),
                DevServer("batch", batch.endpoint_url, "moto and engine.testing.batch"),
            ),
            bucket=NAME,
            variables={
                **given,
                "AWS_ENDPOINT_URL": batch.endpoint_url,
                "AFLOW_BATCH_QUEUE": NAME,
                "AFLOW_BATCH_JOB_ROLE": f"arn:aws:iam::123456789012:role/{NAME}-job",
                "AFLOW_BATCH_EXECUTION_ROLE": f"arn:aws:iam::123456789012:role/{NAME}-job",
            },
        )


def _are_processes(options: argparse.Namespace) -> bool:
    return str(options.runner) == "process"


def _has_seaweedfs() -> bool:
    return Path(sys.executable).with_name("weed").exists() or shutil.which("weed") is not None


async def _make_bucket(stack: DevStack) -> None:
    session = AwsSession(Config())
    try:
        client = await session.client("s3")
        with contextlib.suppress(
            client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
        ):
            await client.create_bucket(Bucket=stack.bucket)
    finally:
        await session.aclose()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m engine.testing.dev")
    parser.add_argument("folder")
    parser.add_argument("--vcpus", type=int, default=64)
    parser.add_argument("--runner", default="process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
