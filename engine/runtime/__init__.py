"""The composition root: the one place where the parts of a run are chosen and joined."""

from engine.runtime.engine import Engine
from engine.runtime.options import RunOptions
from engine.runtime.result import FinishedRun, RunData, RunFailedError

__all__ = ["Engine", "FinishedRun", "RunData", "RunFailedError", "RunOptions"]
