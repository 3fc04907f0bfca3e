"""One large array written by a step and read by the next."""

import time

import numpy as np

from engine import FlowSpec, Parameter, step


class BigArray(FlowSpec):
    mib = Parameter("mib", default=1024, type=int)

    @step
    def start(self):
        self.array = np.random.default_rng(1).random(self.mib * 2**17)
        self.made_at = time.time()
        self.next(self.load)

    @step
    def load(self):
        began_at = time.time()
        began = time.perf_counter()
        array = self.array
        first = float(array[0])
        took = time.perf_counter() - began
        self.persist_s, self.load_s, self.first = began_at - self.made_at, took, first
        self.next(self.end)

    @step
    def end(self):
        print("BENCH", self.persist_s, self.load_s)


if __name__ == "__main__":
    BigArray()
