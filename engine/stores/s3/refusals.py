"""What the SDK and aiohttp raise where a request failed, as errors of ours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.aws.errors import Answer
from engine.aws.sessions import sdk_errors
from engine.errors import StoreSettingError, StoreUnavailableError, StoreUnreachableError
from engine.stores.s3.answers import ENDPOINT_HINT, RefusedError


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Turn what a request raises into errors of ours; `doing` is "read s3://bucket/key".

    Raises:
        RefusedError: S3 answered with an error.
        StoreSettingError, StoreUnreachableError, StoreUnavailableError: there is no answer.
        StoreError: `aws.sessions.sdk_errors`.
    """
    import aiohttp  # noqa: PLC0415  # a client has imported it already
    import botocore.exceptions as sdk  # noqa: PLC0415  # as above

    try:
        with sdk_errors(doing):
            yield
    except sdk.ClientError as error:
        raise RefusedError(_answer_of(error.response)) from error
    except (sdk.SSLError, aiohttp.ClientSSLError) as error:
        hint = "set s3_ca_bundle (AFLOW_S3_CA_BUNDLE) to the file that holds its authority"
        raise StoreSettingError(f"cannot {doing}: {error}", hint=hint) from error
    except (sdk.ConnectionError, sdk.ConnectTimeoutError, aiohttp.ClientConnectorError) as error:
        raise StoreUnreachableError(f"cannot {doing}: {error}", hint=ENDPOINT_HINT) from error
    except (
        sdk.HTTPClientError,
        sdk.IncompleteReadError,
        sdk.FlexibleChecksumError,
        aiohttp.ClientError,
        OSError,
    ) as error:
        raise StoreUnavailableError(f"cannot {doing}: {error or type(error)}") from error


def _answer_of(response: Mapping[str, Any]) -> Answer:  # Any: the SDK's own
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    facts = response.get("Error", {})
    code = str(facts.get("Code") or "")
    # The SDK makes a code of the status where the server gave none.
    return Answer(status, "" if code.isdecimal() else code, str(facts.get("Message") or ""))
