"""The smallest flow: two steps, and a value that one leaves for the other.

aflow run examples/hello.py --name Ada
"""

from engine import FlowSpec, Parameter, step


class Hello(FlowSpec):
    """Greets somebody."""

    name = Parameter("name", default="world", help="whom to greet")

    @step
    def start(self):
        self.greeting = f"Hello, {self.name}!"
        self.next(self.end)

    @step
    def end(self):
        print(self.greeting)


if __name__ == "__main__":
    Hello()
