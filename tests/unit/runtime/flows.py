"""Flows that the tests of the runtime run in a process of their own."""

import os
import sys
import time

from engine import FlowSpec, Parameter, step


class Quick(FlowSpec):
    @step
    def start(self) -> None:
        self.x = 1
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class Large(FlowSpec):
    """Has a large parameter and a large constant, and reads both."""

    text = Parameter("text", default="")
    table = "y" * 2**20

    @step
    def start(self) -> None:
        self.sizes = len(self.text), len(self.table)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class Naps(FlowSpec):
    """Says that it is asleep, and sleeps for an hour."""

    @step
    def start(self) -> None:
        sys.stdout.write("asleep\n")
        time.sleep(3600)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class Item(FlowSpec):
    """Fails in its last item until the file `mended` is there."""

    mended = Parameter("mended", default="")

    @step
    def start(self) -> None:
        self.items = [0, 1, 2]
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        if self.input == 2 and not os.path.exists(self.mended):
            raise RuntimeError("broken")
        self.value = self.input
        self.next(self.join)

    @step
    def join(self, inputs: list["Item"]) -> None:
        self.total = sum(i.value for i in inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass
