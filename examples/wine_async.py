# aflow: extra=examples
"""The engine inside an async program: watch one run as it goes, then start others side by side.

The flow asks which depth of tree tells three kinds of wine apart, on the 178 wines that
scikit-learn ships. Nothing is read from a command line: `await Engine.run(...)` is a call like any
other, so the same lines stand in a web handler, a notebook cell or a test.

python examples/wine_async.py
"""

import asyncio

from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier

from engine import Engine, FlowSpec, Parameter, step


class Wine(FlowSpec):
    """Cross-validate trees of several depths."""

    deepest = Parameter("deepest", default=6)
    seed = Parameter("seed", default=0)

    @step
    def start(self):
        self.features, self.kinds = load_wine(return_X_y=True)
        self.depths = range(1, self.deepest + 1)
        self.next(self.grow, foreach="depths")

    @step
    def grow(self):
        tree = DecisionTreeClassifier(max_depth=self.input, random_state=self.seed)
        self.depth = self.input
        self.accuracy = float(cross_val_score(tree, self.features, self.kinds, cv=10).mean())
        self.next(self.compare)

    @step
    def compare(self, inputs):
        self.best = max((task.accuracy, task.depth) for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def main() -> None:
    async with Engine() as engine:
        async for event in engine.stream(Wine, params={"deepest": 3}, max_workers=4):
            print(f"  {type(event).__name__}")

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(Engine.run(Wine, params={"seed": seed})) for seed in range(3)]
    for run in (task.result() for task in runs):
        accuracy, depth = run.data.best
        print(f"{run.pathspec}: depth {depth} tells {accuracy:.1%} of the wines")


if __name__ == "__main__":
    asyncio.run(main())
