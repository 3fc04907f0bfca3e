"""The text of flows that the tests of the command line run."""

from pathlib import Path

HELLO = '''
"""A module's words."""
from engine import FlowSpec, JSONType, Parameter, step


class HelloFlow(FlowSpec):
    """Greets, many times.

    And more words.
    """

    alpha = Parameter("alpha", default=0.5, help="how much")
    who = Parameter("who_it_is", default="world")
    names = Parameter("names", separator=",", default="a,b,c")
    limits = Parameter("limits", type=JSONType, default=None)
    color = Parameter("color", default="red", help="a name that is also ours")

    @step
    def start(self):
        """Make items."""
        self.next(self.work, foreach="names")

    @step
    def work(self):
        print("hello", self.input, self.who)
        self.x = self.input * 2
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.total = "".join(i.x for i in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total, self.alpha, self.limits, self.color)


if __name__ == "__main__":
    HelloFlow()
'''

READS = """
from engine import FlowSpec, IncludeFile, step


class ReadsFlow(FlowSpec):
    words = IncludeFile("words", required=True, help="what to count")

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        print(len(self.words.split()))
"""

FAILS = """
import os, sys
from engine import FlowSpec, step


class FailsFlow(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("working", self.input)
        if self.input and not os.path.exists("mended"):
            raise ValueError("not yet")
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        print("ended")


if __name__ == "__main__":
    FailsFlow()
"""

SLOW = """
import time
from engine import FlowSpec, step


class SlowFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.nap)

    @step
    def nap(self):
        print("asleep", flush=True)
        time.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    SlowFlow()
"""

BROKEN = """
from engine import FlowSpec, step


class BrokenFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.nowhere)

    @step
    def end(self):
        pass
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text.lstrip())
    return path
