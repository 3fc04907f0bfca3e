"""R-06: what is wrong with the settings of S3, and what `aflow run` and `aflow list` say of it.

`python -m tests.faults.wrong_s3` prints the table, with the seconds that each took.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import EXIT_AUTH, EXIT_CONFIG, EXIT_INFRASTRUCTURE
from engine.testing.fault_proxy import Faults
from engine.testing.servers import READER_KEY, READER_SECRET, ServerAddress
from tests.faults.bad_inputs import Said, aflow
from tests.faults.remote_site import own_server, proxied, say, url_of

FLOW = """
import time
from engine import FlowSpec, step


class Naps(FlowSpec):
    @step
    def start(self):
        time.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@dataclass(frozen=True)
class Wrong:
    """`variables` replace those that let one in; or each request is answered with `answer`."""

    name: str
    exit_code: int
    says: str
    hint: str
    variables: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    readable: bool = False  # whether `aflow list` works


NOBODY = {
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
}
READER = {"AWS_ACCESS_KEY_ID": READER_KEY, "AWS_SECRET_ACCESS_KEY": READER_SECRET}
NO_BUCKET = {"AFLOW_DATASTORE": "s3://no-such-bucket/x"}
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
CASES = [
    Wrong(
        "no such bucket",
        EXIT_CONFIG,
        "NoSuchBucket",
        "create the bucket",
        NO_BUCKET,
    ),
    Wrong(
        "may only read",
        EXIT_AUTH,
        "AccessDenied",
        "s3:PutObject",
        READER,
        readable=True,
    ),
    Wrong(
        "denied",
        EXIT_AUTH,
        "AccessDenied",
        "s3:PutObject",
        answer="403:AccessDenied",
    ),
    Wrong("wrong secret", EXIT_AUTH, "Signature", "secret key", {"AWS_SECRET_ACCESS_KEY": "no"}),
    Wrong("unknown key", EXIT_AUTH, "InvalidAccess", "access key", {"AWS_ACCESS_KEY_ID": "no"}),
    Wrong("no credentials", EXIT_AUTH, "credentials", "aws sso login", NOBODY),
    Wrong("no such profile", EXIT_CONFIG, "nobody", "~/.aws", {"AWS_PROFILE": "nobody"}),
    Wrong(
        "expired token",
        EXIT_AUTH,
        "ExpiredToken",
        "log in again",
        answer="400:ExpiredToken",
    ),
    Wrong(
        "wrong region",
        EXIT_CONFIG,
        "Permanent",
        "s3_region",
        answer="301:PermanentRedirect",
    ),
    Wrong(
        "signed for another region",
        EXIT_CONFIG,
        "Malformed",
        "s3_region",
        answer="400:AuthorizationHeaderMalformed",
    ),
    Wrong(
        "wrong endpoint",
        EXIT_INFRASTRUCTURE,
        "127.0.0.1:9",
        "s3_endpoint_url",
        NOWHERE,
    ),
    Wrong("an endpoint that is not S3", EXIT_CONFIG, "404", "s3_endpoint_url", answer="404:"),
    Wrong("clock is off", EXIT_AUTH, "Skewed", "clock", answer="403:RequestTimeTooSkewed"),
]

SAMPLE = (
    *("no such bucket", "may only read", "denied", "no credentials"),
    *("expired token", "wrong region", "wrong endpoint"),
)
"""Those with which bin/test runs a flow."""


@contextmanager
def met(case: Wrong, server: ServerAddress, place: Path) -> Iterator[Mapping[str, str]]:
    """The variables of a process that meets the case."""
    variables = {
        **server.variables,
        "AFLOW_DATASTORE": url_of(place),
        "XDG_CACHE_HOME": str(place / "cache"),
        **case.variables,
    }
    if not case.answer:
        yield variables
        return
    with proxied(server.endpoint_url, Faults(1.0, (case.answer,))) as url:
        yield variables | {"AWS_ENDPOINT_URL": url}


def attempt(case: Wrong, server: ServerAddress, place: Path, *words: str) -> Said:
    """Call aflow in a directory that has the flow."""
    (place / "naps.py").write_text(FLOW)
    with met(case, server, place) as variables:
        return aflow(words, place, variables)


def main() -> None:
    """Print the table: case, command, exit code, seconds, error and hint."""
    with own_server() as (server, folder), tempfile.TemporaryDirectory(dir=folder) as name:
        for case in CASES:
            for words in (("run", "naps.py"), ("list",)):
                began = time.monotonic()
                said = attempt(case, server, Path(name), *words)
                took_s = time.monotonic() - began
                lines = said.err.splitlines()
                told = " ".join(
                    line.strip() for line in lines if "error[" in line or "hint" in line
                )
                say(f"{case.name} | {words[0]} | {said.code} | {took_s:.1f} s | {told[:230]}")


if __name__ == "__main__":
    main()
