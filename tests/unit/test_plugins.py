"""Plugins are found by group and name, and a failure says what to do."""

import sys
from pathlib import Path
from textwrap import TextWrapper

import pytest

from engine import plugins
from engine.errors import PluginError
from engine.ids import TaskKey

SHIPPED = {"local": "engine.ids:TaskKey", "broken": "engine.ids:Nope", "module": "engine.ids"}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path where distributions can be put."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(place: Path, distribution: str, *lines: str) -> None:
    info = place / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aflow.test]\n" + "\n".join(lines) + "\n")


def test_a_shipped_part_is_imported_by_its_name() -> None:
    assert plugins.load("aflow.test", "local", shipped=SHIPPED) is TaskKey
    assert plugins.load("aflow.test", "module", shipped=SHIPPED) is sys.modules["engine.ids"]


def test_an_installed_plugin_is_found(installed: Path) -> None:
    install(installed, "one", "mine = textwrap:TextWrapper.wrap")

    assert plugins.load("aflow.test", "mine") == TextWrapper.wrap
    assert plugins.names("aflow.test", shipped=SHIPPED) == ["broken", "local", "mine", "module"]


def test_an_unknown_name_suggests_the_one_meant() -> None:
    with pytest.raises(PluginError, match=r"no aflow\.test named 'locla'") as caught:
        plugins.load("aflow.test", "locla", shipped=SHIPPED)
    assert caught.value.hint == "did you mean 'local'?"
    assert caught.value.exit_code == 3
    with pytest.raises(PluginError) as caught:
        plugins.load("aflow.test", "zzz", shipped=SHIPPED)
    assert caught.value.hint == "installed: broken, local, module"


def test_a_name_that_two_distributions_define_differently_is_refused(installed: Path) -> None:
    install(installed, "one", "mine = textwrap:wrap")
    install(installed, "two", "mine = textwrap:fill")

    with pytest.raises(PluginError, match="defined more than once: textwrap:fill, textwrap:wrap"):
        plugins.load("aflow.test", "mine")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("mine = no_such_module:x", "ModuleNotFoundError"),
        ("mine = textwrap:nope", "AttributeError"),
        ("mine = plugin_that_raises", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_says_why(
    installed: Path, line: str, problem: str
) -> None:
    (installed / "plugin_that_raises.py").write_text("1 / 0\n")
    install(installed, "one", line)

    with pytest.raises(PluginError, match=f"cannot be loaded: {problem}") as caught:
        plugins.load("aflow.test", "mine")
    assert caught.value.__cause__ is not None
