"""An array that ten steps carry without touching it, while its blob is out of the store.

A step that read or hashed the array's bytes would fail: they are not there until the last step puts
them back. For aflow only; it knows the layout of the local datastore.
"""

import os
from pathlib import Path

import numpy as np

from engine import FlowSpec, Parameter, step

STORE = Path(os.environ.get("AFLOW_DATASTORE", ".aflow")).resolve()


class HideAndSeek(FlowSpec):
    mib = Parameter("mib", default=100, type=int)

    @step
    def start(self):
        self.array = np.random.default_rng(1).random(self.mib * 2**17)
        self.first = float(self.array[0])
        self.next(self.hide)

    @step
    def hide(self):
        blobs = [p for p in (STORE / "blobs").rglob("*") if p.is_file()]
        self.stored = [str(p) for p in blobs if p.stat().st_size >= self.mib * 2**20]
        os.rename(self.stored[0], STORE / "hidden")
        self.next(self.carry_2)

    @step
    def carry_2(self):
        self.next(self.carry_3)

    @step
    def carry_3(self):
        self.next(self.carry_4)

    @step
    def carry_4(self):
        self.next(self.carry_5)

    @step
    def carry_5(self):
        self.next(self.carry_6)

    @step
    def carry_6(self):
        self.next(self.carry_7)

    @step
    def carry_7(self):
        self.next(self.carry_8)

    @step
    def carry_8(self):
        self.next(self.carry_9)

    @step
    def carry_9(self):
        self.next(self.end)

    @step
    def end(self):
        os.rename(STORE / "hidden", self.stored[0])
        print("BENCH", len(self.stored), int(float(self.array[0]) == self.first))


if __name__ == "__main__":
    HideAndSeek()
