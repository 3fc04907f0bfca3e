"""Whether a failed attempt is tried again. Pure.

Source: AWS Batch API Reference, RetryStrategy and EvaluateOnExit; User Guide, "Automated job
retries" (read 2026-11): conditions are tried in order, the first that fits decides, and if none
fits the job is tried again. A pattern may end with an asterisk; letters are equal whatever their
case.
"""

from collections.abc import Mapping, Sequence

from engine.testing.batch.jobs import Outcome


def again(evaluate: Sequence[Mapping[str, str]], outcome: Outcome, status_reason: str) -> bool:
    """Whether the conditions let a job be tried again whose attempt ended so."""
    code = "" if outcome.exit_code is None else str(outcome.exit_code)
    facts = {"onExitCode": code, "onReason": outcome.reason, "onStatusReason": status_reason}
    for condition in evaluate:
        patterns = {name: condition[name] for name in facts if condition.get(name)}
        if all(matches(pattern, facts[name]) for name, pattern in patterns.items()):
            return condition.get("action", "").upper() == "RETRY"
    return True


def matches(pattern: str, text: str) -> bool:
    pattern, text = pattern.lower(), text.lower()
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
