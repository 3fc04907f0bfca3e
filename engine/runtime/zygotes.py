"""How a run comes by a zygote when its caller has not forked one."""

import importlib
from typing import Any

from engine.executors.zygote import Zygote, spawn_zygote
from engine.flow.spec import FlowSpec
from engine.worker.loader import target_of
from engine.worker.main import Boot, program_of, zygote_argv


def spawn_for(
    flow: type[FlowSpec], decorators: tuple[str, ...] = (), *, isolation: str = "fork"
) -> Zygote:
    """Start a zygote in a new interpreter that loads `flow` as it is here.

    A flow of a file or a module is loaded again by its name; one of a notebook's cell or a
    function's body is sent by value, with its graph: its source exists in this process only.

    Raises:
        FlowError: the flow is not well formed.
    """
    target: str | bytes | None = target_of(flow)
    if target is None:
        cloudpickle: Any = importlib.import_module("cloudpickle")  # Any: it has no types
        target = bytes(cloudpickle.dumps(program_of(flow, decorators)))
    boot = Boot.here(target, decorators, isolation=isolation)
    return spawn_zygote(zygote_argv(), boot.pack())
