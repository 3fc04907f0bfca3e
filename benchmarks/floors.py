"""The least that a piece of work can cost on this machine, whoever does it.

`python -m benchmarks.floors NAME ...` prints `BENCH seconds`. Each floor does with bare system
calls what the engine does with guarantees: no journal, no manifest, no name, no log.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def fork(count: str, width: str, modules: str) -> float:
    """Fork and reap `count` children that exit at once, `width` at a time.

    The parent first imports `modules`, a JSON list: those that a task's process holds.
    """
    for module in json.loads(modules):
        with suppress(ImportError):
            importlib.import_module(module)
    began = time.perf_counter()
    living = 0
    for _ in range(int(count)):
        if living == int(width):
            os.wait()
            living -= 1
        if os.fork() == 0:
            os._exit(0)
        living += 1
    for _ in range(living):
        os.wait()
    return time.perf_counter() - began


def write(count: str, mib: str) -> float:
    """Hash `count` arrays with BLAKE3 and write each to a file of its own under a final name."""
    import numpy as np
    from blake3 import blake3

    random = np.random.default_rng(1)
    arrays = [random.random(int(mib) * 2**17) for _ in range(int(count))]
    began = time.perf_counter()
    for array in arrays:
        view = array.data.cast("B")
        digest = blake3(view).hexdigest()
        with Path("temporary").open("wb", buffering=0) as file:
            while view:  # one call writes 2 GiB at most
                view = view[file.write(view) :]
        Path("temporary").rename(digest)
    return time.perf_counter() - began


FLOORS: dict[str, Callable[..., float]] = {"fork": fork, "write": write}

if __name__ == "__main__":
    print("BENCH", FLOORS[sys.argv[1]](*sys.argv[2:]))
