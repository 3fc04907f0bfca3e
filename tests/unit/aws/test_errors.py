"""What AWS answers becomes the error that says what to do."""

import pytest

from engine.aws.errors import Answer, error_of, parse_answer
from engine.errors import (
    StoreDeniedError,
    StoreError,
    StoreSettingError,
    StoreThrottledError,
    StoreUnavailableError,
)

BODY = "<?xml?>\n<Error><Code>NoSuchKey</Code><Message>not &lt;there&gt;</Message></Error>"


def test_an_answer_is_read_from_its_xml() -> None:
    assert parse_answer(404, f"before {BODY} behind") == Answer(404, "NoSuchKey", "not <there>")


@pytest.mark.parametrize("body", ["", "<html>no</html>", "<Error><Code>cut", "<Error><a></Error>"])
def test_what_is_no_answer_of_s3_has_a_status_alone(body: str) -> None:
    assert parse_answer(502, body) == Answer(502)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, "SlowDown"), StoreThrottledError),
        (Answer(503), StoreThrottledError),
        (Answer(429), StoreThrottledError),
        (Answer(500, "InternalError"), StoreUnavailableError),
        (Answer(400, "RequestTimeout"), StoreUnavailableError),
        (Answer(400, "BadDigest"), StoreUnavailableError),
        (Answer(409, "ConditionalRequestConflict"), StoreUnavailableError),
        (Answer(403, "AccessDenied"), StoreDeniedError),
        (Answer(400, "ExpiredToken"), StoreDeniedError),
        (Answer(403, "RequestTimeTooSkewed"), StoreDeniedError),
        (Answer(403), StoreDeniedError),
        (Answer(404, "NoSuchBucket"), StoreSettingError),
        (Answer(301), StoreSettingError),
        (Answer(400, "AuthorizationHeaderMalformed"), StoreSettingError),
        (Answer(404), StoreSettingError),
        (Answer(400, "EntityTooLarge"), StoreError),
    ],
    ids=str,
)
def test_each_answer_has_its_error(answer: Answer, kind: type[StoreError]) -> None:
    error = error_of(answer, doing="read s3://b/k")
    assert type(error) is kind
    assert error.message.startswith("cannot read s3://b/k: ")
    assert error.retryable == issubclass(kind, StoreUnavailableError)
    assert error.hint or kind in (StoreUnavailableError, StoreError)
