"""What flows do, each to be tried on every shape that it suits, and what must then be true."""

from engine import Run
from tests.flows.harness import Bench, tasks, values
from tests.flows.shapes import Behaviour, Place, Shape


class Checked(Behaviour):
    """A behaviour with its check. `run` is the client's view, `bench` gives the command line's."""

    name = ""

    def __str__(self) -> str:
        return self.name or type(self).__name__

    def execute(self, bench: Bench) -> Run:
        return bench.run("--max-workers", "4")

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        raise AssertionError("a behaviour without a check")


class EveryTaskSucceeds(Checked):
    """The listings of client and command line agree with the shape."""

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        assert run.finished
        assert run.successful
        assert {step.id for step in run} >= {place.name for place in shape.places}
        for place in shape.places:
            found = tasks(run, place.name)
            assert len(found) == shape.count(place.name), place.name
            assert all(task.successful for task in found)
        assert run.end_task is not None
        status = bench.json("status", run.id)
        assert status["status"] == "succeeded"
        assert {step["step"]: step["done"] for step in status["steps"]} == {
            place.name: shape.count(place.name) for place in shape.places
        }


class ArtifactsFlow(Checked):
    """What a step assigns is there in every later one, up to the join, which sees it in order."""

    def body(self, place: Place) -> str:
        if place.name == "start":
            return "self.trail = ['start']"
        if place.is_join:
            return (
                "self.trails = [task.trail for task in inputs]\n"
                f"self.trail = [*self.trails[0], {place.name!r}]"
            )
        return f"self.trail = [*self.trail, {place.name!r}]"

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        for place in shape.places:
            for trail in values(run, place.name, "trail"):
                assert trail[0] == "start"
                assert trail[-1] == place.name
            if place.is_join:
                for trails in values(run, place.name, "trails"):
                    assert len({len(trail) for trail in trails}) <= 2  # branches of unequal length
        assert run.data.trail[-1] == "end"
        (dumped,) = bench.json("dump", f"{run.id}/end/0", "--include", "trail")["tasks"]
        assert dumped["task"] == f"{run.pathspec}/end/0"
        assert dumped["artifacts"]["trail"]["value"] == run.data.trail


class ItemsAndTheirOrder(Checked):
    """input, index and foreach_stack() name the place; joins get their inputs in its order."""

    def suits(self, shape: Shape) -> bool:
        return bool(shape.having("foreach"))

    def body(self, place: Place) -> str:
        lines = ["stack = self.foreach_stack()", f"assert len(stack) == {place.depth}, stack"]
        if place.depth:
            lines += [
                "assert self.index == stack[-1][0]",
                "self.where = [level[0] for level in stack]",
                "self.totals = [level[1] for level in stack]",
                "self.item = self.input",
            ]
        if place.is_join:
            lines += ["self.wheres = [getattr(task, 'where', None) for task in inputs]"]
        return "\n".join(lines)

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        items = {p.next[0]: list(p.foreach) for p in shape.places if p.foreach is not None}
        for place in shape.places:
            found = tasks(run, place.name)
            if place.depth:
                where = [task.data.where for task in found]
                assert sorted(where) == sorted(
                    [int(part) for part in task.id.split(".")] for task in found
                )
            if place.name in items:
                for task in found:
                    assert task.data.item == items[place.name][task.data.where[-1]]
                    assert task.data.totals[-1] == len(items[place.name])
            if place.is_join:
                for wheres in values(run, place.name, "wheres"):
                    assert wheres == sorted(wheres, key=lambda w: (w is not None, w or []))


class MergedArtifacts(Checked):
    """merge_artifacts takes over what branches agree on; disagreement is named."""

    def body(self, place: Place) -> str:
        mine = f"self.mine = {place.name!r} + str(self.foreach_stack())"
        if place.name == "start":
            return f"self.common = {{'a': [1, 2]}}\n{mine}"
        if place.is_join:
            return (
                "try:\n"
                "    self.merge_artifacts(inputs, include=['no_such'])\n"
                "except Exception as error:\n"
                "    self.missing = type(error).__name__\n"
                "ignored = [n for n in ('mine', 'missing', 'conflict', 'own', 'first')\n"
                "           if any(hasattr(task, n) for task in inputs)]\n"
                "ignored += [n for n in ('items_outer', 'items_each', 'items_a')\n"
                "            if any(hasattr(task, n) for task in inputs)]\n"
                "if len({task.mine for task in inputs}) > 1:\n"
                "    try:\n"
                "        agreed = [name for name in ignored if name != 'mine']\n"
                "        self.merge_artifacts(inputs, exclude=agreed)\n"
                "    except Exception as error:\n"
                "        self.conflict = type(error).__name__\n"
                "assert not hasattr(self, 'common')\n"
                "self.merge_artifacts(inputs, exclude=ignored)\n"
                f"{mine}"
            )
        return mine

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        assert run.data.common == {"a": [1, 2]}
        for place in shape.having("join"):
            for task in tasks(run, place.name):
                assert task.data.missing == "MissingInMergeArtifactsException"
                if shape.name != "foreach_of_one":
                    assert task.data.conflict == "UnhandledInMergeArtifactsException"


class Retried(Checked):
    """Every step fails twice first; what failed attempts assigned is nowhere."""

    imports = ("current", "retry")

    def suits(self, shape: Shape) -> bool:
        return shape.name != "wide"

    def decorators(self, place: Place) -> list[str]:
        return ["@retry(times=2, minutes_between_retries=0)"]

    def body(self, place: Place) -> str:
        keep = "self.merge_artifacts(inputs, include=[])\n" if place.is_join else ""
        return (
            f"{keep}self.attempt = current.retry_count\n"
            "if current.retry_count < 2:\n"
            "    self.stale = 'of a failed attempt'\n"
            "    raise ValueError(f'attempt {current.retry_count}')"
        )

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        assert run.successful
        for place in shape.places:
            for task in tasks(run, place.name):
                assert task.data.attempt == 2
                assert task.current_attempt == 2
                assert "stale" not in task.data


class Caught(Checked):
    """A step that fails for good is caught, and what follows can ask."""

    imports = ("catch", "retry")

    def suits(self, shape: Shape) -> bool:
        return shape.has_plain_inner and shape.name != "wide"

    def decorators(self, place: Place) -> list[str]:
        if {"inner", "linear"} <= place.kinds:
            return ["@catch(var='failure', print_exception=False)"]
        return []

    def body(self, place: Place) -> str:
        if {"inner", "linear"} <= place.kinds:
            return f"self.half_done = 1\nraise KeyError('in {place.name}')"
        if place.is_join:
            return "self.failures = [getattr(task, 'failure', None) for task in inputs]"
        return "pass"

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        assert run.successful
        for place in shape.places:
            if {"inner", "linear"} <= place.kinds:
                for failure in values(run, place.name, "failure"):
                    assert "KeyError" in failure.type
                    assert place.name in str(failure.exception)
                    assert "raise KeyError" in failure.stacktrace


class FailsAndResumes(Checked):
    """What was committed before a failure is reused, not run again; the rest runs then."""

    imports = ("current",)

    def suits(self, shape: Shape) -> bool:
        return shape.name != "two_steps"

    def body(self, place: Place) -> str:
        lines = [
            "import os",
            "with open('started', 'a') as file:",
            f"    file.write({place.name!r} + '/' + current.task_id + '\\n')",
            "self.done_in = current.run_id",
            "self.origin = current.origin_run_id",
        ]
        if place.name == "end":
            lines += ["if os.environ.get('BROKEN'):", "    raise RuntimeError('broken on purpose')"]
        return "\n".join(lines)

    def execute(self, bench: Bench) -> Run:
        bench.run(expected=1, BROKEN="1")
        return bench.resume()

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        assert run.successful
        origin = next(r for r in run.parent if r.id != run.id)
        assert not origin.successful
        started = (bench.flow.parent / "started").read_text().split()
        total = sum(shape.count(place.name) for place in shape.places)
        assert len(started) == total + 1  # only `end` ran twice
        assert started.count("end/0") == 2
        for place in shape.places:
            expected = run.id if place.name == "end" else origin.id
            assert set(values(run, place.name, "done_in")) == {expected}
        assert run.data.origin == origin.id


class ParametersEverywhere(Checked):
    """Parameters and constants are the same in every step, also in joins, and cannot be changed."""

    imports = ("JSONType", "Parameter")
    class_body = (
        "number = Parameter('number', default=3)\n"
        "text = Parameter('text', type=str, default=lambda context: context.flow_name)\n"
        "table = Parameter('table', type=JSONType, default='[1]')\n"
        "constant = ('never', 'changes')"
    )

    def body(self, place: Place) -> str:
        return (
            "self.seen = [self.number, self.text, self.table, self.constant]\n"
            "for name in ('number', 'constant'):\n"
            "    try:\n"
            "        setattr(self, name, 0)\n"
            "    except AttributeError:\n"
            "        continue\n"
            "    raise RuntimeError(f'{name} could be changed')"
        )

    def execute(self, bench: Bench) -> Run:
        words = ("--number", "17", "--table", '{"a": [null, "é"]}')
        return bench.run(*words, AFLOW_PARAMETER_NUMBER="18")

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        expected = [17, "Shaped", {"a": [None, "é"]}, ("never", "changes")]
        for place in shape.places:
            assert all(seen == expected for seen in values(run, place.name, "seen"))


class Printed(Checked):
    """What a task prints is kept with its task, in order, and told by every reader alike."""

    imports = ("current",)

    def body(self, place: Place) -> str:
        return (
            "import sys\n"
            "for i in range(3):\n"
            "    print(current.step_name, current.task_id, 'line', i)\n"
            "print('to stderr', file=sys.stderr)\n"
            "print('no newline at the end', end='')"
        )

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        said = bench.aflow("logs", run.id, "--stream", "out")
        assert said.code == 0, said
        for place in shape.places:
            for task in tasks(run, place.name):
                expected = [f"{place.name} {task.id} line {i}" for i in range(3)]
                assert task.stdout.splitlines() == [*expected, "no newline at the end"]
                assert task.stderr.splitlines() == ["to stderr"]
                assert all(line in said.out for line in expected)
        assert "to stderr" not in said.out


class CurrentIsRight(Checked):
    """`current` names the task that is running."""

    imports = ("current", "environment", "Parameter")
    class_body = "p = Parameter('p', default=1)"

    def decorators(self, place: Place) -> list[str]:
        return [f"@environment(vars={{'WHERE': {place.name!r}}})"]

    def body(self, place: Place) -> str:
        return (
            "import os\n"
            "self.told = dict(flow=current.flow_name, run=current.run_id, step=current.step_name,\n"
            "    task=current.task_id, retry=current.retry_count, pathspec=current.pathspec,\n"
            "    origin=current.origin_run_id, parameters=list(current.parameter_names),\n"
            "    tags=sorted(current.tags), where=os.environ['WHERE'])"
        )

    def execute(self, bench: Bench) -> Run:
        return bench.run("--tag", "two", "--tag", "one")

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        for place in shape.places:
            for task in tasks(run, place.name):
                told = task.data.told
                assert {"one", "two"} <= set(told.pop("tags"))
                assert told == {
                    "flow": "Shaped",
                    "run": run.id,
                    "step": place.name,
                    "task": task.id,
                    "retry": 0,
                    "pathspec": task.pathspec,
                    "origin": None,
                    "parameters": ["p"],
                    "where": place.name,
                }


class ArraysAndObjects(Checked):
    """Arrays, tables, objects of the flow's own classes and plain values come back equal."""

    class_body = '"""Large and small."""'

    def suits(self, shape: Shape) -> bool:
        return shape.name != "wide"

    def body(self, place: Place) -> str:
        return (
            "import numpy, datetime, decimal\n"
            f"seed = sum({place.name!r}.encode()) + sum(l[0] for l in self.foreach_stack())\n"
            "self.array = numpy.random.default_rng(seed).random((64, 65))\n"
            "self.strange = [numpy.float32(1.5), {(1, 2): {3}}, b'\\0', 10**40, 1j, ...,\n"
            "    datetime.date(2020, 1, 2), decimal.Decimal('1.10'), float('inf'), None]\n"
            "self.total = float(self.array.sum())\n"
            "self.shared = [self.array, self.array]"
        )

    def check(self, shape: Shape, run: Run, bench: Bench) -> None:
        for place in shape.places:
            for task in tasks(run, place.name):
                assert task.data.array.shape == (64, 65)
                assert float(task.data.array.sum()) == task.data.total
                assert task.data.strange[3] == 10**40
                first, second = task.data.shared
                assert first is second


class SpawnedLikeForked(ArtifactsFlow):
    """Tasks in fresh interpreters behave as forked ones do."""

    def suits(self, shape: Shape) -> bool:
        return shape.name in ("linear", "foreach", "branch")

    def execute(self, bench: Bench) -> Run:
        return bench.run("--isolation", "spawn")


BEHAVIOURS: tuple[Checked, ...] = (
    EveryTaskSucceeds(),
    ArtifactsFlow(),
    ItemsAndTheirOrder(),
    MergedArtifacts(),
    Retried(),
    Caught(),
    FailsAndResumes(),
    ParametersEverywhere(),
    Printed(),
    CurrentIsRight(),
    ArraysAndObjects(),
    SpawnedLikeForked(),
)
