"""Many arrays of 1 MiB written by a step and read by the next."""

import time

import numpy as np

from engine import FlowSpec, Parameter, step


class ManyArrays(FlowSpec):
    count = Parameter("count", default=1000, type=int)

    @step
    def start(self):
        random = np.random.default_rng(1)
        for i in range(self.count):
            setattr(self, f"array_{i}", random.random(2**17))
        self.made_at = time.time()
        self.next(self.load)

    @step
    def load(self):
        began_at = time.time()
        began = time.perf_counter()
        total = sum(float(getattr(self, f"array_{i}")[0]) for i in range(self.count))
        took = time.perf_counter() - began
        self.persist_s, self.load_s, self.total = began_at - self.made_at, took, total
        self.next(self.end)

    @step
    def end(self):
        print("BENCH", self.persist_s, self.load_s)


if __name__ == "__main__":
    ManyArrays()
