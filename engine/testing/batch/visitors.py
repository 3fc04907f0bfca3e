"""Who may ask: programs of this user, and no web page. Pure.

Jobs are commands, so whoever may submit one may do anything. A page in a browser can send requests
to loopback, by its own name too if its DNS says so; it cannot leave out Origin, nor make up Host.
Where keys are a secret, the access key has to be the right one; signatures are not verified, since
who knows the access key could read the secret beside it.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.testing.batch.limits import ApiError

_HOST = re.compile(r"(127\.0\.0\.1|localhost|[\w.-]+\.localhost)(:\d+)?\Z")
_KEY = re.compile(r"Credential=(?P<key>[^/]+)/")


def check_visitor(environ: Mapping[str, Any], access_key: str | None) -> None:
    """Let a request in.

    Args:
        environ: of WSGI.
        access_key: the one that it has to be signed by; None for any.

    Raises:
        ApiError: it comes from a web page, or is not signed by the key.
    """
    if "HTTP_ORIGIN" in environ or not _HOST.match(environ.get("HTTP_HOST", "")):
        raise _denied("Web pages have no business here.")
    signed = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
    if access_key is not None and (signed is None or signed["key"] != access_key):
        raise _denied("The security token included in the request is invalid.")


def _denied(message: str) -> ApiError:
    return ApiError(message, code="UnrecognizedClientException", status=403)
