"""May these credentials do in AWS Batch what a driver does? Asked by requests that come to nothing.

AWS looks at permissions before it looks at what a request names. So a job of a definition that
there is not, or one that nobody has submitted, tells what may be done and does nothing. The one
thing that stays is a job definition, which the first run would make too.
"""

from collections.abc import Awaitable, Callable, Mapping

from engine.container.command import container_command
from engine.errors import JobRejectedError
from engine.executors.batch_client import BatchClient
from engine.executors.batch_errors import BatchDeniedError
from engine.executors.batch_requests import Needs, definition

_NOTHING = "aflow-doctor"
_NO_JOB = "00000000-0000-0000-0000-000000000000"


async def denied_actions(client: BatchClient, needs: Needs) -> dict[str, BatchDeniedError]:
    """What is denied of what a driver does with jobs, by the name of the action.

    Args:
        client: speaks to Batch.
        needs: of a step; its queue is there.

    Raises:
        ExecutorError: Batch does not answer.
    """
    body = {"jobName": _NOTHING, "jobQueue": needs.queue, "jobDefinition": _NOTHING}
    probes: Mapping[str, Callable[[], Awaitable[object]]] = {
        "batch:RegisterJobDefinition": lambda: client.register(
            definition(needs, container_command())
        ),
        "batch:SubmitJob": lambda: client.submit(body),
        "batch:DescribeJobs": lambda: client.describe([_NO_JOB]),
        "batch:ListJobs": lambda: client.named(needs.queue, _NOTHING),
        "batch:TerminateJob": lambda: client.terminate(_NO_JOB, _NOTHING),
    }
    denied: dict[str, BatchDeniedError] = {}
    for action, probe in probes.items():
        try:
            await probe()
        except BatchDeniedError as error:
            denied[action] = error
        except JobRejectedError:
            pass  # it was looked at, so it was let in
    return denied
