"""The client: `Flow("X").latest_run["train"].task.data.x`. Reads; runs nothing but your pickles.

Every object is a name and a record; what it holds is fetched when it is asked for, by page. Reading
is synchronous and local: an awaiting program uses engine.client.aio, which has the same names.
Names and meanings are Metaflow's, but for these: `finished` is true of a run that failed, too; a
step's tasks come in the order of their launch; and an exception is text, never an object.
"""

from engine.client.code import Code
from engine.client.namespaces import (
    NamespaceMismatchError,
    default_metadata,
    default_namespace,
    get_metadata,
    get_namespace,
    metadata,
    namespace,
)
from engine.client.reader import Reader
from engine.client.runs import Client, Flow, Run
from engine.client.tasks import DataArtifact, Metadata, Step, Task
from engine.client.values import ArtifactNotFoundError, Artifacts, TaskData

Metaflow = Client

__all__ = [
    "ArtifactNotFoundError",
    "Artifacts",
    "Client",
    "Code",
    "DataArtifact",
    "Flow",
    "Metadata",
    "Metaflow",
    "NamespaceMismatchError",
    "Reader",
    "Run",
    "Step",
    "Task",
    "TaskData",
    "default_metadata",
    "default_namespace",
    "get_metadata",
    "get_namespace",
    "metadata",
    "namespace",
]
