"""What a task of a gang is told of its gang: `current.parallel`, and the variables of torchrun.

PyTorch's `init_process_group()`, Lightning, Accelerate and others read these variables and need
nothing more: aflow starts one process a task, and each is told which of how many it is, and where
the first one listens.

Source: docs.pytorch.org, "torchrun (Elastic Launch)", environment variables (read 2026-11).
"""

import zlib

from msgspec import Struct
from msgspec.structs import replace

from engine.ids import TaskKey
from engine.stores.taskspec import TaskSpec

PORTS = range(20_000, 32_000)  # below those that Linux hands out by itself
_THIS_MACHINE = "127.0.0.1"


class Parallel(Struct, frozen=True):
    """`current.parallel`: a task's place in its gang.

    `main_ip` is the address of the first task, which has `node_index` 0 and the id
    `control_task_id`; `num_nodes` is how many there are.
    """

    main_ip: str
    num_nodes: int
    node_index: int
    control_task_id: str


def parallel_of(spec: TaskSpec) -> Parallel:
    """The place of a task of a @parallel step."""
    *outer, last = spec.frames
    first = TaskKey(spec.step, (*outer, replace(last, index=0)))
    return Parallel(spec.main_ip or _THIS_MACHINE, last.total, last.index, first.task_id)


def variables_of(spec: TaskSpec, port: int | None) -> dict[str, str]:
    """The variables of torchrun, for one process of a task on each node.

    Args:
        spec: of a task of a @parallel step.
        port: the step's own, if it has one.
    """
    place = parallel_of(spec)
    # A gang on one machine shares it, so that each of it takes a processor of its own there.
    is_alone = spec.main_ip is not None
    local_rank, local_size = (0, 1) if is_alone else (place.node_index, place.num_nodes)
    found = {
        "MASTER_ADDR": place.main_ip,
        "MASTER_PORT": port or spec.master_port or _agreed_port(spec, place),
        "WORLD_SIZE": place.num_nodes,
        "RANK": place.node_index,
        "NODE_RANK": place.node_index,
        "LOCAL_RANK": local_rank,
        "LOCAL_WORLD_SIZE": local_size,
    }
    return {name: str(value) for name, value in found.items()}


def _agreed_port(spec: TaskSpec, place: Parallel) -> int:
    """A port that all of a gang come to, each by itself."""
    name = f"{spec.run_id}/{spec.step}/{place.control_task_id}/{spec.attempt}"
    return PORTS[zlib.crc32(name.encode()) % len(PORTS)]
