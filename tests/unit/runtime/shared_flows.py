"""Flows whose tasks share a value, for tests of what is uploaded."""

from engine import FlowSpec, Parameter, step


class Fan(FlowSpec):
    """Six tasks carry one large value; the last step may fail."""

    fails = Parameter("fails", default=False, type=bool)

    @step
    def start(self) -> None:
        self.shared = b"x" * 100_000
        self.items = list(range(6))
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        self.size = len(self.shared) + self.input
        self.next(self.join)

    @step
    def join(self, inputs) -> None:  # type: ignore[no-untyped-def]  # as users write it
        self.sizes = [task.size for task in inputs]
        self.next(self.end)

    @step
    def end(self) -> None:
        if self.fails:
            raise ValueError("asked to")


class Wide(FlowSpec):
    """A thousand tasks with ten small values each, and one large one that they share."""

    fails = Parameter("fails", default=False, type=bool)

    @step
    def start(self) -> None:
        self.shared = b"x" * 100_000
        self.items = [str(number) for number in range(1000)]
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        for number in range(10):
            setattr(self, f"value_{number}", number)
        self.next(self.join)

    @step
    def join(self, inputs) -> None:  # type: ignore[no-untyped-def]  # as users write it
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        if self.fails:
            raise ValueError("asked to")


class Listed(FlowSpec):
    """The list of its foreach is too large for a manifest."""

    @step
    def start(self) -> None:
        self.items = [bytes([number]) * 3_000 for number in range(3)]
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        self.next(self.join)

    @step
    def join(self, inputs) -> None:  # type: ignore[no-untyped-def]  # as users write it
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class Many(FlowSpec):
    """One task with three hundred values of 100 kB, each of them a blob."""

    @step
    def start(self) -> None:
        for number in range(300):
            setattr(self, f"value_{number}", number.to_bytes(2, "big") * 50_000)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass
