"""Flows that the tests of the runtime run in a process of their own."""

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
