"""Flows with one fault each in what they say of gangs; see bad_flows.py."""

from tests.unit.flow.bad_flows import END, BadFlow, steps

JOIN = "j(inputs): self.next(self.end)"
PARALLEL = "    @parallel\n"
GANG = PARALLEL + steps("a: self.next(self.j)", JOIN, END)

BAD_GANGS = (
    BadFlow(
        "num_parallel onto a step without @parallel",
        steps("start: self.next(self.a, num_parallel=4)<", "a: self.next(self.j)", JOIN, END),
        "leads to 'a' with num_parallel=, but 'a' has no @parallel",
        "add @parallel above `def a`",
    ),
    BadFlow(
        "@parallel without num_parallel",
        steps("start: self.next(self.a)<") + PARALLEL + steps("a: self.next(self.end)", END),
        "leads to 'a', which has @parallel, without num_parallel=",
        "num_parallel=4",
        count=2,
    ),
    BadFlow(
        "@parallel under foreach",
        steps("start: self.x = [1]; self.next(self.a, foreach='x')<") + GANG,
        "leads to 'a', which has @parallel, without num_parallel=",
    ),
    BadFlow(
        "num_parallel beside foreach",
        steps("start: self.x = [1]; self.next(self.a, foreach='x', num_parallel=2)<") + GANG,
        "num_parallel= beside foreach='x'",
        "two steps",
    ),
    BadFlow(
        "num_parallel with two steps",
        steps("start: self.next(self.a, self.b, num_parallel=2)<")
        + PARALLEL
        + steps("a: self.next(self.j)")
        + PARALLEL
        + steps("b: self.next(self.j)", JOIN, END),
        "num_parallel= and 2 steps",
    ),
    BadFlow(
        "num_parallel of none",
        steps("start: self.next(self.a, num_parallel=0)<") + GANG,
        "num_parallel=0",
        "at least 1",
    ),
    BadFlow(
        "num_parallel below none",
        steps("start: self.next(self.a, num_parallel=-2)<") + GANG,
        "num_parallel=-2",
        "at least 1",
    ),
    BadFlow(
        "num_parallel that is no whole number",
        steps("start: self.next(self.a, num_parallel=2.5)<") + GANG,
        "num_parallel=2.5",
        "a whole number",
    ),
    BadFlow(
        "a gang that is not joined",
        steps("start: self.next(self.a, num_parallel=2)")
        + PARALLEL
        + steps("a: self.next(self.b)<", "b: self.next(self.j)", JOIN, END),
        "has @parallel, but leads to 'b', which is no join",
        "def b(self, inputs)",
    ),
    BadFlow(
        "a gang in a gang",
        steps("start: self.next(self.a, num_parallel=2)")
        + PARALLEL
        + steps("a: self.next(self.b, num_parallel=2)<")
        + PARALLEL
        + steps("b: self.next(self.j)", JOIN, "k(inputs): self.next(self.end)", END),
        "step 'a' has @parallel, but splits the flow again",
        "lead it to a join",
    ),
    BadFlow(
        "a foreach out of a gang",
        steps("start: self.next(self.a, num_parallel=2)")
        + PARALLEL
        + steps("a: self.x = [1]; self.next(self.b, foreach='x')<", "b: self.next(self.j)")
        + steps(JOIN, "k(inputs): self.next(self.end)", END),
        "step 'a' has @parallel, but splits the flow again",
    ),
    BadFlow(
        "@parallel on the first step",
        PARALLEL + steps("start<: self.next(self.end)", END),
        "step 'start' has @parallel, but is the first step",
        "between the step that says num_parallel= and a join",
    ),
    BadFlow(
        "@parallel on a join",
        steps("start: self.next(self.a, num_parallel=2)")
        + PARALLEL
        + steps("a: self.next(self.j)")
        + PARALLEL
        + steps("j(inputs)<: self.next(self.end)", END),
        "step 'j' has @parallel, but is a join",
    ),
    BadFlow(
        "@catch on a step with num_parallel",
        "    @catch\n" + steps("start<: self.next(self.a, num_parallel=2)") + GANG,
        "@catch, but splits by num_parallel=",
        "a step of its own",
    ),
)
