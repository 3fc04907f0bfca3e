"""A foreach over tasks that only wait: how full the slots are kept."""

import time

from engine import FlowSpec, Parameter, step


class Sleepers(FlowSpec):
    width = Parameter("width", default=1000, type=int)
    seconds = Parameter("seconds", default=1.0, type=float)

    @step
    def start(self):
        self.numbers = list(range(self.width))
        self.next(self.wait, foreach="numbers")

    @step
    def wait(self):
        time.sleep(self.seconds)
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.count = len(list(inputs))
        self.next(self.end)

    @step
    def end(self):
        print("BENCH", self.count)


if __name__ == "__main__":
    Sleepers()
