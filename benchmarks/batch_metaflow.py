"""One job of AWS Batch as Metaflow drives it: a process for it, in Metaflow's environment.

    python batch_metaflow.py QUEUE NAME

By its own client class: defined, submitted, and asked after as its `Batch.wait` does, without the
flow, the log's tail in S3 and the command line that go with it. Prints its calls by name.
"""

import json
import sys
import time
from collections import Counter
from typing import Any

from metaflow.mflog import update_delay  # type: ignore[import-not-found]  # in an environment of
from metaflow.plugins.aws.batch.batch_client import BatchClient  # type: ignore[import-not-found]

# of its own, both
_NOTHING = (
    *("shared_memory", "max_swap", "swappiness", "inferentia", "efa", "host_volumes"),
    *("efs_volumes", "use_tmpfs", "tmpfs_tempdir", "tmpfs_size", "tmpfs_path"),
    *("ephemeral_storage", "log_driver", "log_options", "privileged"),
)
ROLE = "arn:aws:iam::123456789012:role/bench"


def main(queue: str, name: str) -> None:
    client, calls = BatchClient(), Counter[str]()

    def note(model: Any, **_: object) -> None:  # Any: the SDK's
        calls[model.name] += 1

    client._client.meta.events.register("before-call.batch", note)
    nothing = dict.fromkeys(_NOTHING)
    job = client.job().job_name(name).job_queue(queue).command("true").image("image")
    job = job.iam_role(ROLE).execution_role(ROLE).cpu(1).gpu(0).memory(4096)
    job = job.shared_memory(None).max_swap(None).swappiness(None).inferentia(None).efa(None)
    job = job.timeout_in_secs(3600).job_def(
        "image", ROLE, queue, ROLE, memory=4096, num_parallel=0, **nothing
    )
    running = job.attempts(1).execute()
    while not (running.is_running or running.is_done or running.is_crashed):
        time.sleep(0.2)
    began_s = time.time()
    while running.is_running:
        time.sleep(min(update_delay(time.time() - began_s), 5.0))
    print(json.dumps({"succeeded": bool(running.is_successful), "calls": calls}))


main(*sys.argv[1:])
