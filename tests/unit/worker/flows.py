"""Flows whose steps the worker's tests run one by one."""

import os
import sys
import time

from engine.errors import FlowError
from engine.flow.current import current
from engine.flow.decorators import catch, timeout
from engine.flow.parameters import Parameter
from engine.flow.spec import FlowSpec, step


class Shapes(FlowSpec):
    """A foreach inside of a static split, with a parameter and a constant."""

    alpha = Parameter("alpha", default=1)
    constant = "stays"

    @step
    def start(self):
        self.kept = [1, 2, 3]
        self.count = 1
        self.gone = "soon"
        self.next(self.fan, self.other)

    @step
    def fan(self):
        self.letters = ["a", "b", "c"]
        self.next(self.item, foreach="letters")

    @step
    def item(self):
        self.seen = (self.input, self.index, self.foreach_stack(), self.alpha, self.constant)
        self.facts = (current.pathspec, current.retry_count, sorted(current.parameter_names))
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.seen = [i.seen[0] for i in inputs]
        self.indices = [i.index for i in inputs]
        self.merge_artifacts(inputs, exclude=["facts"])
        self.next(self.both)

    @step
    def other(self):
        self.count += 1
        del self.gone
        self.next(self.both)

    @step
    def both(self, inputs):
        self.counts = (inputs.collect.count, inputs.other.count)
        self.next(self.end)

    @step
    def end(self):
        sys.stdout.write(f"{self.counts}\n")


class Trouble(FlowSpec):
    """Every step fails in its own way. Not a sound flow: the steps are run one by one."""

    items = ()

    @step
    def raises(self):
        self.before = "kept"
        raise ValueError("bad value")

    @step
    def exits(self):
        sys.exit(0)

    @step
    def forgets(self):
        self.x = 1

    @step
    def strays(self):
        self.next(self.exits)

    @step
    def fans_out_over_nothing(self):
        self.nothing = []
        self.next(self.forgets, foreach="nothing")

    @step
    def fans_out_over_an_iterator(self):
        self.numbers = iter(range(3))
        self.next(self.forgets, foreach="numbers")

    @step
    def cannot_be_stored(self):
        self.lock = sys._getframe()
        self.next(self.forgets)

    @timeout(seconds=0.05)
    @step
    def takes_too_long(self):
        time.sleep(10)
        self.next(self.forgets)

    @timeout(seconds=30)
    @step
    def is_in_time(self):
        self.next(self.forgets)

    @catch(var="failure", print_exception=True)
    @step
    def caught(self):
        self.before = "kept"
        self.unsafe = sys._getframe()
        raise KeyError("missing")

    @catch(var="failure", print_exception=False)
    @step
    def not_caught(self):
        self.next(self.forgets)

    @catch
    @step
    def caught_quietly(self):
        raise FlowError("engine's own", hint="mend it")

    @step
    def environment(self):
        self.value = os.environ["AFLOW_TEST_VARIABLE"]
        self.next(self.forgets)

    @step
    def large(self):
        for number in range(200):
            setattr(self, f"artifact_{number}", os.urandom(1000))
        self.next(self.forgets)
