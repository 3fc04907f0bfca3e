"""The settings there are: each key's help, and how its text or TOML value is read. Pure.

`engine.config` holds the values and says where they come from.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

_TRIES_MAX = 10
"""Attempts that AWS Batch makes of one job, at most."""


class Setting(Struct, frozen=True):
    """How one key is read: its help, and a function from text or a TOML value to the value."""

    help: str
    read: Callable[[object], object]
    is_path: bool = False


class WrongValueError(ValueError):
    """A value is not of its key's type; says which type that is."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise WrongValueError("a text that is not empty")
    return value.strip()


def _list(value: object) -> str:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
        raise WrongValueError("a list of texts, or texts with commas between")
    return ",".join(w.strip() for w in words)


def _one_of(*choices: str) -> Callable[[object], object]:
    def read(value: object) -> str:
        if value not in choices:
            raise WrongValueError("one of " + ", ".join(choices))
        return str(value)

    return read


def _at_least(least: int) -> Callable[[object], object]:
    def read(value: object) -> int:
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise WrongValueError(f"a whole number of at least {least}")
        return number

    return read


_count = _at_least(1)


def _at_most_ten(value: object) -> object:
    number = _count(value)
    if isinstance(number, int) and number > _TRIES_MAX:
        raise WrongValueError(f"a whole number of 1 to {_TRIES_MAX}")
    return number


def _truth(value: object) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    truth = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(truth, bool):
        raise WrongValueError("true or false")
    return truth


def _web_url(value: object) -> str:
    text = _text(value).rstrip("/")
    if not text.startswith(("http://", "https://")) or not text.partition("://")[2]:
        raise WrongValueError("a url that begins with http:// or https://")
    return text


_S3: Mapping[str, Setting] = {
    "s3_endpoint_url": Setting("where S3 is; default: what AWS's own settings say", _web_url),
    "s3_region": Setting("the bucket's region; default: what AWS's own settings say", _text),
    "s3_profile": Setting("the profile of ~/.aws that holds the credentials", _text),
    "s3_addressing": Setting(
        "whether a bucket is part of the host's name or of the path: auto, virtual or path",
        _one_of("auto", "virtual", "path"),
    ),
    "s3_ca_bundle": Setting("file of the certificates to trust", _text, is_path=True),
    "s3_proxy": Setting("HTTP proxy on the way to S3", _web_url),
    "s3_encryption": Setting(
        "how S3 encrypts what is written: none (the bucket's way), AES256 or aws:kms",
        _one_of("none", "AES256", "aws:kms"),
    ),
    "s3_kms_key": Setting("the KMS key of s3_encryption aws:kms; default: the account's", _text),
    "s3_requester_pays": Setting("pay for reads of others' buckets: true or false", _truth),
    "s3_root": Setting(
        "where S3(run=...) keeps objects; default: data in an s3:// datastore", _text
    ),
    "s3_client": Setting(
        "what moves the bytes: auto, obstore or aioboto3", _one_of("auto", "obstore", "aioboto3")
    ),
    "s3_concurrency": Setting("the most requests to S3 at once", _count),
    "s3_memory_mib": Setting("the most MiB on their way to and from S3 at once", _at_least(16)),
    "s3_deadline_s": Setting("how many seconds a request to S3 is tried again", _count),
}

_BATCH: Mapping[str, Setting] = {
    "batch_queue": Setting("the job queue of @batch; default: the only one that is enabled", _text),
    "batch_image": Setting("the image of @batch; default: python of the driver's version", _text),
    "batch_job_role": Setting("the role that containers take: ARN; it reads the datastore", _text),
    "batch_execution_role": Setting("the role that Fargate pulls and logs with: ARN", _text),
    "batch_endpoint_url": Setting("where AWS Batch is; default: what AWS's settings say", _web_url),
    "batch_region": Setting("the region of AWS Batch; default: what AWS's settings say", _text),
    "batch_array_max": Setting("the most tasks in one array job; 1: no arrays", _count),
    "batch_on_demand_queue": Setting(
        "the queue of tasks whose machines were taken away too often", _text
    ),
    "batch_reclaims": Setting("how often is too often for batch_on_demand_queue", _at_most_ten),
    "batch_waiting_s": Setting(
        "how many seconds a task waits for a machine before it is told why", _count
    ),
}

SETTINGS: Mapping[str, Setting] = {
    "datastore": Setting("directory or s3:// url where runs are kept", _text, is_path=True),
    "metadata": Setting(
        "where runs are listed; default: inside the datastore", _text, is_path=True
    ),
    "max_workers": Setting("tasks at once; default: the cores", _count),
    "on_failure": Setting(
        "what running tasks do when one failed: finish or cancel", _one_of("finish", "cancel")
    ),
    "isolation": Setting("how a task gets its process: fork or spawn", _one_of("fork", "spawn")),
    "max_num_splits_guard": Setting(
        "the widest foreach that starts without being asked for", _count
    ),
    "durability": Setting(
        "what a commit survives: a killed process, or power loss", _one_of("process", "power")
    ),
    "verify": Setting(
        "when mapped bytes are hashed again: changed or always", _one_of("changed", "always")
    ),
    "package_suffixes": Setting(
        "the ends of the names of files that are code, or none to package no code", _list
    ),
    "cache_dir": Setting("where object stores are cached", _text, is_path=True),
    "cache_max_mib": Setting("the most MiB of blobs in the cache of an object store", _count),
    "user": Setting("who runs this", _text),
    "color": Setting("auto, always or never", _one_of("auto", "always", "never")),
    "log_level": Setting(
        "what the engine says of itself", _one_of("debug", "info", "warning", "error")
    ),
    **_S3,
    **_BATCH,
}
