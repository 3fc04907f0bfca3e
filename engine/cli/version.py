"""`aflow version`: what is running here."""

import json
import platform
import sys

from engine.cli.options import session, verb


def line() -> str:
    """One line: "aflow 0.1.0"."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"aflow {version('aflow-engine')}"
    except PackageNotFoundError:
        return "aflow (not installed)"


@verb("version", examples="aflow version\naflow version --json", json=True)
def command() -> None:
    """Print the versions of aflow and Python."""
    facts = {
        "aflow": line().partition(" ")[2],
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
    }
    if session().json:
        print(json.dumps({"schema": "aflow/version/1", **facts}))
    else:
        print(f"{line()} (Python {facts['python']}, {facts['platform']})")
