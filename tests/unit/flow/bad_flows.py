"""Flows with one fault each: the file's text, the marked line, and words of the message.

Shared with the tests of the command line, which write them to files and look at what is printed.
`# <- HERE` marks the line that the error has to name.
"""

from dataclasses import dataclass

MARKER = "# <- HERE"
HEAD = (
    "from engine import FlowSpec, JSONType, Parameter, catch, parallel, retry, step, timeout\n\n\n"
)


@dataclass(frozen=True)
class BadFlow:
    """`says` stands in the message, `hints` in the hint. `count` faults are found in all."""

    name: str
    body: str
    says: str
    hints: str = ""
    count: int = 1

    @property
    def text(self) -> str:
        return HEAD + "class Bad(FlowSpec):\n" + self.body

    @property
    def line(self) -> int:
        """The marked line; without a mark, that of the class."""
        marker = MARKER if MARKER in self.text else "class Bad("
        lines = self.text.splitlines()
        return 1 + next(i for i, line in enumerate(lines) if marker in line)

    @property
    def source_line(self) -> str:
        return self.text.splitlines()[self.line - 1].strip()


def steps(*parts: str) -> str:
    """Methods from lines "name: statement; statement", joins as "name(inputs): ...".

    `!` before a name gives a method without `@step`.
    """
    out = []
    for part in parts:
        head, _, body = part.partition(": ")
        if not head.startswith("!"):
            out.append("    @step")
        name, _, more = head.lstrip("!").partition("(")
        here = "  " + MARKER if head.endswith("<") else ""
        arguments = more.rstrip("<)") if more else ""
        joined = f"self, {arguments}" if arguments else "self"
        out.append(f"    def {name.rstrip('<')}({joined}):{here}")
        for statement in body.split("; "):
            mark = "  " + MARKER if statement.endswith("<") else ""
            out.append(f"        {statement.rstrip('<')}{mark}")
    return "\n".join(out) + "\n"


END = "end: pass"

BAD_FLOWS = (
    BadFlow("no steps", "    x = 1\n", "has no steps", "@step"),
    BadFlow(
        "start is missing",
        steps("begin: self.next(self.end)", END),
        "no step 'start'",
        "def start(self)",
    ),
    BadFlow(
        "end is missing",
        steps("start: self.next(self.a)", "a: pass"),
        "no step 'end'",
        "@step(end=True)",
        count=2,
    ),
    BadFlow(
        "start is misspelt",
        steps("strat: self.next(self.end)", END),
        "no step 'start'",
        "did you mean 'strat'?",
    ),
    BadFlow("next is missing", steps("start<: self.x = 1", END), "does not call self.next"),
    BadFlow(
        "next is not last",
        steps("start: self.next(self.end)<; self.x = 1", END),
        "not as its last statement",
    ),
    BadFlow(
        "next is inside of an if",
        steps("start: if self:\n            self.next(self.end)<", END),
        "not as its last statement",
        "out of any `if`",
    ),
    BadFlow(
        "next is called twice",
        steps("start: self.next(self.end); self.next(self.end)<", END),
        "calls self.next 2 times",
        "once",
    ),
    BadFlow(
        "end calls next",
        steps("start: self.next(self.end)", "end: self.next(self.start)<"),
        "'end' is the last step, but calls self.next",
    ),
    BadFlow(
        "unknown step",
        steps("start: self.next(self.trian)<", "train: self.next(self.end)", END),
        "leads to 'trian', which is not a step",
        "did you mean 'train'?",
    ),
    BadFlow(
        "a method without @step",
        steps("start: self.next(self.a)<", "!a: self.next(self.end)", END),
        "leads to 'a', which is not a step",
        "add @step above `def a`",
    ),
    BadFlow(
        "unreachable step",
        steps("start: self.next(self.end)", "lost<: self.next(self.end)", END),
        "'lost' is never reached",
    ),
    BadFlow(
        "split without a join",
        steps(
            "start: self.next(self.a, self.b)",
            "a: self.next(self.end)",
            "b: self.next(self.end)",
            "end<: pass",
        ),
        "which no join brings together",
        "def join(self, inputs)",
    ),
    BadFlow(
        "foreach without a join",
        steps(
            "start<: self.items = [1]; self.next(self.a, foreach='items')",
            "a: self.next(self.end)",
            END,
        ),
        "'start' splits the flow, and no join",
    ),
    BadFlow(
        "join without inputs",
        steps(
            "start: self.next(self.a, self.b)",
            "a: self.next(self.c)",
            "b: self.next(self.c)",
            "c<: self.next(self.end)",
            END,
        ),
        "'c' is reached from 'a' and 'b', but is not a join",
        "def c(self, inputs)",
    ),
    BadFlow(
        "join without a split",
        steps("start: self.next(self.a)", "a(inputs)<: self.next(self.end)", END),
        "'a' is a join, but no split is open",
        "remove `inputs`",
    ),
    BadFlow(
        "join of different splits",
        steps(
            "start: self.next(self.a, self.b)",
            "a: self.xs = [1]; self.next(self.c, foreach='xs')",
            "b: self.next(self.d)",
            "c: self.next(self.d)",
            "d(inputs)<: self.next(self.end)",
            END,
        ),
        "branches of different splits",
    ),
    BadFlow(
        "join of some of the branches",
        steps(
            "start: self.next(self.a, self.b, self.c)",
            "a: self.next(self.j)",
            "b: self.next(self.j)",
            "c: self.next(self.end)",
            "j(inputs)<: self.next(self.end)",
            END,
        ),
        "only 2 of the 3 branches of split 'start'",
    ),
    BadFlow(
        "split straight to its join",
        steps(
            "start: self.next(self.a, self.j)",
            "a: self.next(self.j)",
            "j(inputs)<: self.next(self.end)",
            END,
        ),
        "leads straight to its own join",
        "put a step between",
    ),
    BadFlow(
        "too many arguments",
        steps("start: self.next(self.a)", "a(inputs, more)<: self.next(self.end)", END),
        "takes self, inputs and more",
    ),
    BadFlow(
        "keyword arguments",
        steps("start: self.next(self.a)", "a(**options)<: self.next(self.end)", END),
        "arguments other than self and inputs",
    ),
    BadFlow(
        "end as a join",
        steps(
            "start: self.next(self.a, self.b)",
            "a: self.next(self.end)",
            "b: self.next(self.end)",
            "end(inputs)<: pass",
        ),
        "'end' is the last step and cannot be a join",
        "add a join before it",
    ),
    BadFlow(
        "cycle",
        steps("start: self.next(self.a)", "a: self.next(self.b)", "b: self.next(self.a)<", END),
        "goes in a circle: a -> b -> a",
    ),
    BadFlow(
        "a step to itself",
        steps("start: self.next(self.start)<", END),
        "leads to itself",
    ),
    BadFlow(
        "the same step twice",
        steps("start: self.next(self.a, self.a)<", "a: self.next(self.end)", END),
        "leads to the same step twice",
    ),
    BadFlow(
        "foreach with two steps",
        steps(
            "start: self.xs = [1]; self.next(self.a, self.b, foreach='xs')<",
            "a: self.next(self.j)",
            "b: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "foreach='xs' and 2 steps",
    ),
    BadFlow(
        "foreach over None",
        steps(
            "start: self.xs = None<; self.next(self.a, foreach='xs')",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "self.xs, which is None",
    ),
    BadFlow(
        "foreach over a number",
        steps(
            "start: self.xs = 10<; self.next(self.a, foreach='xs')",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "self.xs, which is 10",
    ),
    BadFlow(
        "foreach over nothing",
        steps(
            "start: self.xs = []<; self.next(self.a, foreach='xs')",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "self.xs, which is empty",
        "at least one item",
    ),
    BadFlow(
        "foreach over a constant that is a number",
        "    xs = 3\n"
        + steps(
            "start: self.next(self.a, foreach='xs')<",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "a class constant that is 3",
    ),
    BadFlow(
        "foreach over a parameter that is a number",
        "    xs = Parameter('xs', default=3)\n"
        + steps(
            "start: self.next(self.a, foreach='xs')<",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "a parameter that is one int",
    ),
    BadFlow(
        "foreach over a step",
        steps(
            "start: self.next(self.a, foreach='a')<",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "self.a, which cannot be an artifact",
    ),
    BadFlow(
        "foreach without quotes",
        steps(
            "start: items = []; self.next(self.a, foreach=items)<", "a: self.next(self.end)", END
        ),
        "foreach=items, which is not a name in quotes",
        "in quotes",
    ),
    BadFlow(
        "a step in quotes",
        steps("start: self.next('end')<", END),
        "'end', which is not a step",
        "write self.end",
    ),
    BadFlow(
        "steps from a list",
        steps("start: self.next(*[self.end])<", END),
        "*[self.end]",
        "self.STEP",
    ),
    BadFlow("next without a step", steps("start: self.next()<", END), "without a step"),
    BadFlow(
        "switch",
        steps(
            "start: self.c = 'x'; self.next({'x': self.end, 'y': self.end}, condition='c')<", END
        ),
        "condition=, which this release does not support",
    ),
    BadFlow(
        "an unknown keyword of next",
        steps("start: self.next(self.end, for_each='x')<", END),
        "for_each=, which it does not know",
        "did you mean 'foreach'?",
    ),
    BadFlow(
        "a step name in capitals",
        steps("start: self.next(self.Train)", "Train<: self.next(self.end)", END),
        "'Train' is not small letters",
    ),
    BadFlow(
        "a step name that begins with _",
        steps("start: self.next(self._a)", "_a<: self.next(self.end)", END),
        "'_a' is not small letters",
    ),
    BadFlow(
        "a step with a name of FlowSpec",
        steps("start: self.next(self.input)", "input<: self.next(self.end)", END),
        "step name 'input' is reserved",
    ),
    BadFlow(
        "a parameter with a name of FlowSpec",
        f"    index = Parameter('index')  {MARKER}\n" + steps("start: self.next(self.end)", END),
        "parameter name 'index' is reserved",
    ),
    BadFlow(
        "a parameter with a name of an option",
        f"    tag = Parameter('tag')  {MARKER}\n" + steps("start: self.next(self.end)", END),
        "parameter name 'tag' is reserved",
    ),
    BadFlow(
        "a parameter name with a space",
        f"    x = Parameter('two words')  {MARKER}\n" + steps("start: self.next(self.end)", END),
        "'two words' is not letters",
    ),
    BadFlow(
        "two parameters of one name",
        "    a = Parameter('learning-rate')\n"
        f"    b = Parameter('Learning_Rate')  {MARKER}\n"
        + steps("start: self.next(self.end)", END),
        "'Learning_Rate' is there twice",
    ),
    BadFlow(
        "a default of another type",
        f"    a = Parameter('a', type=int, default='many')  {MARKER}\n"
        + steps("start: self.next(self.end)", END),
        "the default of parameter 'a' must be int, not 'many'",
    ),
    BadFlow(
        "a type that no parameter has",
        f"    a = Parameter('a', type=list)  {MARKER}\n" + steps("start: self.next(self.end)", END),
        "has type list; it can be str, int, float, bool or JSONType",
    ),
    BadFlow(
        "a separator for numbers",
        f"    a = Parameter('a', type=int, separator=',')  {MARKER}\n"
        + steps("start: self.next(self.end)", END),
        "has a separator, but is int",
    ),
    BadFlow(
        "an artifact with a name of FlowSpec",
        steps("start: self.next = 1<; self.next(self.end)", END),
        "assigns self.next, a name that belongs to FlowSpec",
    ),
    BadFlow(
        "an artifact with a name of a step",
        steps("start: self.end = 1<; self.next(self.end)", END),
        "assigns self.end, a name that belongs to the step 'end'",
    ),
    BadFlow(
        "a class attribute with a name of FlowSpec",
        "    _changed = True\n" + steps("start: self.next(self.end)", END),
        "attribute name '_changed' is reserved",
    ),
    BadFlow(
        "@catch on a foreach",
        "    @catch(var='oops')\n"
        + steps(
            "start<: self.xs = [1]; self.next(self.a, foreach='xs')",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            END,
        ),
        "has @catch, but splits by foreach='xs'",
    ),
    BadFlow(
        "@catch into a taken name",
        "    @catch(var='end')\n" + steps("start<: self.next(self.end)", END),
        "@catch(var='end'), a name that is taken",
    ),
    BadFlow(
        "a decorator without @step",
        steps("start: self.next(self.end)", END)
        + f"    @retry  {MARKER}\n    def other(self):\n        pass\n",
        "'other' has @retry, but is not a step",
    ),
    BadFlow(
        "two first steps",
        "    @step(start=True)\n    def a(self):\n        self.next(self.end)\n"
        f"    @step(start=True)\n    def b(self):  {MARKER}\n        self.next(self.end)\n"
        + steps(END),
        "'a' and 'b' are all marked @step(start=True)",
    ),
    BadFlow(
        "an async step",
        f"    @step\n    async def start(self):  {MARKER}\n        self.next(self.end)\n"
        + steps(END),
        "'start' is an async function",
        "asyncio.run",
    ),
    BadFlow(
        "a step that yields",
        steps("start<: yield 1; self.next(self.end)", END),
        "'start' is a generator",
    ),
    BadFlow(
        "a step without self",
        f"    @step\n    def start():  {MARKER}\n        self.next(self.end)\n" + steps(END),
        "no argument, not even self",
    ),
)
