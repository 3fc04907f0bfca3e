"""Two steps that do nothing: what starting a run costs."""

from engine import FlowSpec, step


class Hello(FlowSpec):
    @step
    def start(self):
        self.greeting = "hello"
        self.next(self.end)

    @step
    def end(self):
        print("BENCH", len(self.greeting))


if __name__ == "__main__":
    Hello()
