"""Reading runs: `from engine.client import Flow`. See sync.py, and aio.py for its awaited twin."""

from engine.client.sync import (
    ArtifactNotFoundError,
    Client,
    DataArtifact,
    Flow,
    Metaflow,
    NamespaceMismatchError,
    Run,
    Step,
    Task,
    default_metadata,
    default_namespace,
    get_metadata,
    get_namespace,
    metadata,
    namespace,
)

__all__ = [
    "ArtifactNotFoundError",
    "Client",
    "DataArtifact",
    "Flow",
    "Metaflow",
    "NamespaceMismatchError",
    "Run",
    "Step",
    "Task",
    "default_metadata",
    "default_namespace",
    "get_metadata",
    "get_namespace",
    "metadata",
    "namespace",
]
