"""Tags and namespaces."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine import client
from engine.client import Client, Flow, NamespaceMismatchError, Run, Task
from engine.errors import UsageError
from tests.unit.client.stored import BEGAN_US, succeeded

BEGAN = datetime(2026, 7, 25, 17, 20, tzinfo=UTC)


def test_tags_can_be_added_removed_and_replaced(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("a",))
    run, other = Run("Fan/R1"), Run("Fan/R1")

    run.add_tag("b")
    run.add_tags(["c", "d"])
    run.remove_tag("a")
    run.remove_tags(["c", "never had it"])
    run.replace_tag("b", "e")
    run.replace_tags(["d"], ["f", "f"])

    assert other.user_tags == {"e", "f"}
    assert other.tags == {"e", "f", "user:ada", "runtime:dev"}
    assert other.system_tags == {"user:ada", "runtime:dev"}


def test_a_tag_that_is_removed_and_added_at_once_is_there(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("a",))

    Run("Fan/R1").replace_tags(["a"], ["a"])

    assert Run("Fan/R1").user_tags == {"a"}


def test_system_tags_stay(datastore: Path) -> None:
    succeeded(datastore, "R1")
    run = Run("Fan/R1")

    with pytest.raises(UsageError, match="'user:ada' is a system tag"):
        run.remove_tag("user:ada")
    run.add_tag("user:ada")

    assert run.user_tags == frozenset()


@pytest.mark.parametrize("tag", ["", "a\nb", "x" * 257])
def test_what_cannot_be_a_tag_is_refused(datastore: Path, tag: str) -> None:
    succeeded(datastore, "R1")

    with pytest.raises(UsageError):
        Run("Fan/R1").add_tag(tag)


def test_runs_of_others_are_hidden_until_the_namespace_is_left(datastore: Path) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2", user="bob", began_us=BEGAN_US + 1)

    assert [run.id for run in Flow("Fan")] == ["R1"]
    with pytest.raises(NamespaceMismatchError, match="user:ada"):
        Run("Fan/R2")
    with pytest.raises(NamespaceMismatchError):
        Task("Fan/R2/end/0")
    assert client.namespace("user:bob") == client.get_namespace() == "user:bob"
    assert [run.id for run in Flow("Fan")] == ["R2"]
    assert client.namespace(None) is None
    assert client.get_namespace() is None
    assert [run.id for run in Flow("Fan")] == ["R2", "R1"]
    assert client.default_namespace() == "user:ada"


def test_any_tag_is_a_namespace(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("production:x",), user="bob")

    client.namespace("production:x")

    assert Flow("Fan").latest_run == Run("Fan/R1")
    assert Run("Fan/R1").is_in_namespace()
    client.namespace("else")
    assert not Flow("Fan").is_in_namespace()
    assert Client().flows == []
