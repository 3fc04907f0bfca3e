"""A foreach over trivial tasks, each with an artifact of its own, and the join of all of them."""

from engine import FlowSpec, Parameter, step


class Fan(FlowSpec):
    width = Parameter("width", default=1000, type=int)

    @step
    def start(self):
        self.numbers = list(range(self.width))
        self.next(self.square, foreach="numbers")

    @step
    def square(self):
        self.result = self.input**2
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.total = sum(task.result for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("BENCH", self.total)


if __name__ == "__main__":
    Fan()
