"""`aflow check FLOW`: everything that can be known to be wrong before it runs."""

import json

from engine.cli.flow_options import FlowVerb, flow_of_command
from engine.cli.options import session
from engine.errors import EngineError


def _check() -> None:
    from engine.flow.lint import check

    flow = flow_of_command()
    EngineError.raise_first(check(flow))
    if session().json:
        print(json.dumps({"schema": "aflow/check/1", "flow": flow.__name__, "ok": True}))
    else:
        print(f"{flow.__name__}: the flow looks good")


command = FlowVerb(
    "check",
    examples="aflow check flow.py\naflow check flows.py:TrainFlow",
    json=True,
    callback=_check,
    help="Look for faults in a flow without running it.",
)
