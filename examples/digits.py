# aflow: extra=examples
"""A hyper-parameter search on scikit-learn's handwritten digits.

Every point of the grid is a task of its own: it cross-validates one setting of a support vector
machine on the training part. The join picks the best, fits it once more on the whole training part
and scores it on the part that no task has seen. The fitted model is an artifact.

aflow run examples/digits.py --max-workers 64
"""

from itertools import product

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from engine import FlowSpec, JSONType, Parameter, current, retry, step


class Digits(FlowSpec):
    """Search for the support vector machine that reads digits best."""

    grid = Parameter(
        "grid",
        type=JSONType,
        default='{"C": [0.1, 1, 10, 100], "gamma": [0.0003, 0.001, 0.003, 0.01, 0.03]}',
        help="values to try, by parameter of sklearn.svm.SVC",
    )
    folds = Parameter("folds", default=5, help="folds of the cross-validation")
    seed = Parameter("seed", default=7, help="decides which images are held out")

    @step
    def start(self):
        """Load the 1,797 images of 8 x 8 pixels; hold a quarter of them out."""
        images, labels = load_digits(return_X_y=True)
        parts = train_test_split(
            images, labels, test_size=0.25, stratify=labels, random_state=self.seed
        )
        self.images, self.held_out_images, self.labels, self.held_out_labels = parts
        names = sorted(self.grid)
        self.settings = [
            dict(zip(names, values, strict=True))
            for values in product(*(self.grid[name] for name in names))
        ]
        self.next(self.score, foreach="settings")

    @retry(times=1, minutes_between_retries=0)
    @step
    def score(self):
        """Cross-validate one setting on the training part."""
        self.setting = self.input
        scores = cross_val_score(model(self.setting), self.images, self.labels, cv=self.folds)
        self.mean, self.deviation = float(scores.mean()), float(scores.std())
        self.next(self.choose)

    @step
    def choose(self, inputs):
        """Pick the best setting, fit it on the whole training part, score it on the rest."""
        self.merge_artifacts(inputs, exclude=["setting", "mean", "deviation"])
        ranked = sorted(inputs, key=lambda task: task.mean, reverse=True)
        self.ranking = [(task.setting, task.mean, task.deviation) for task in ranked]
        self.best_setting = ranked[0].setting
        self.model = model(self.best_setting).fit(self.images, self.labels)
        self.held_out_score = float(self.model.score(self.held_out_images, self.held_out_labels))
        self.next(self.end)

    @step
    def end(self):
        for setting, mean, deviation in self.ranking[:3]:
            print(f"{mean:.4f} +- {deviation:.4f}  {setting}")
        print(f"best model: SVC({', '.join(f'{k}={v}' for k, v in self.best_setting.items())})")
        print(f"score on {len(self.held_out_labels)} held-out images: {self.held_out_score:.4f}")
        print(f"the model: {current.flow_name}/{current.run_id}/end, artifact `model`")


def model(setting):
    return make_pipeline(StandardScaler(), SVC(**setting))


if __name__ == "__main__":
    Digits()
