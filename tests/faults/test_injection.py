"""S-07: what users pass in arrives as it was given: no shell reads it, no option is made of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine, FlowSpec, Parameter, step
from tests.flows.harness import aflow

ROOT = Path(__file__).parents[2]

FLOW = """
import json, os, sys
from engine import FlowSpec, Parameter, current, environment, step


class Takes(FlowSpec):
    text = Parameter("text", default="")

    @step
    def start(self):
        self.items = [self.text, self.text]
        self.next(self.each, foreach="items")

    @environment(vars={"GIVEN": os.environ.get("GIVEN_TO_DRIVER", "")})
    @step
    def each(self):
        self.seen = [self.input, self.text, os.environ["GIVEN"], sorted(current.tags)]
        self.argv = sys.argv
        self.next(self.join)

    @step
    def join(self, inputs):
        (self.seen, other) = [i.seen for i in inputs]
        assert self.seen == other
        self.next(self.end)

    @step
    def end(self):
        print(json.dumps(self.seen))
"""
HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "| touch pwned",
    "x\ntouch pwned\n",
    "'\"; touch pwned; '\"",
    "${IFS}&&touch${IFS}pwned",
    "--help",
    "-x",
    "--datastore=elsewhere",
    "--",
    "@latest",
    "*",
    "~",
    "%s%n",
    "{0.__class__}",
    "\\",
    "\x1b]0;title\x07",
]

pytestmark = pytest.mark.usefixtures("datastore")


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_s07_a_parameter_a_tag_and_a_variable_arrive_as_they_were_given(
    tmp_path: Path, isolation: str, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "takes.py").write_text(FLOW)
    for text in ["\n".join(HOSTILE), "--help", "--"]:
        tag = text.replace("\n", " ").replace("\x1b", "").replace("\x07", "")[:200]
        words = [f"--text={text}", "--tag", tag, "--isolation", isolation]
        said = aflow("run", "takes.py", *words, cwd=tmp_path, env={"GIVEN_TO_DRIVER": text})
        assert said.code == 0, said
        shown = said.out.partition("] ")[2].splitlines()[0]
        assert json.loads(shown) == [text, text, text, [tag]]
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__", ".xdg"}
    assert left == {"takes.py", "datastore"}
    record_property("hostile texts", len(HOSTILE))


def test_s07_a_parameter_that_looks_like_an_option_is_a_value_after_its_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "takes.py").write_text(FLOW)
    said = aflow("run", "takes.py", "--text", "--datastore", cwd=tmp_path)
    assert (said.code, '["--datastore", "--datastore"' in said.out) == (0, True)


class Echo(FlowSpec):
    text = Parameter("text", default="")

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        self.seen = self.text


@settings(max_examples=6, deadline=None)
@given(text=st.text(max_size=60) | st.sampled_from(HOSTILE))
def test_s07_any_text_is_a_parameter(text: str) -> None:
    assert Engine.run_sync(Echo, params={"text": text}).data.seen == text


SHELLS = re.compile(
    r"shell=True|os\.system\(|os\.popen\(|subprocess_shell|[\"'](ba)?sh[\"'], *[\"']-c"
)


def test_s07_the_engine_starts_programs_by_lists_of_words() -> None:
    sources = list((ROOT / "engine").rglob("*.py"))
    assert len(sources) > 100
    assert [str(path) for path in sources if SHELLS.search(path.read_text())] == []
