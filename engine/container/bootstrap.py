"""The first program of a container: fetches aflow and what it needs from S3, and becomes it.

Its text, without comments, is the command of the job definition; so it stands alone, on nothing but
the standard library of Python 3.11, and is short. Sources: AWS General Reference, "Signature
Version 4 signing process"; Amazon ECS, "Task IAM role", for the credentials of a container; Amazon
EC2, "Use IMDSv2", for those of a machine (read 2026-11).
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import ssl
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, NoReturn

EXIT_PYTHON, EXIT_FETCH, EXIT_DENIED = 90, 91, 92
ENV = os.environ  # noqa: TID251  (this program has no Config)
TRIES = 6

if TYPE_CHECKING:  # an older Python has to come as far as `check_python`
    Found = tuple[str, str, str | None]


def main() -> NoReturn:
    check_python()
    folder = unpacked(ENV["AFLOWJOB_RUNTIME"])
    start = (
        f"import sys; sys.path.insert(0, {folder!r}); from engine.container.main import main; "
        "main()"
    )
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-c", start])


def check_python() -> None:
    """Native code of the package fits one minor version of Python on one platform."""
    wanted, found = ENV["AFLOWJOB_PYTHON"], python_tag()
    if wanted != found:
        stop(EXIT_PYTHON, f"the image has {found}, the driver has {wanted}: they must be equal")


def python_tag() -> str:
    libc = sysconfig.get_config_var("HOST_GNU_TYPE") or ""
    libc = "musl" if "musl" in libc else "glibc"
    return f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {libc}"


def unpacked(digest: str) -> str:
    """The folder that holds the package; unpacked once for all tasks that share the file system."""
    base = ENV.get("AFLOWJOB_CACHE") or tempfile.gettempdir()
    base = os.path.join(base, f"aflow-runtime-{os.getuid()}")
    os.makedirs(base, mode=0o700, exist_ok=True)
    found = os.lstat(base)
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or os.path.islink(base):
        base = tempfile.mkdtemp(prefix="aflow-runtime-")
    folder = os.path.join(base, digest)
    if not os.path.isdir(folder):
        making = tempfile.mkdtemp(dir=base)
        with tarfile.open(fileobj=io.BytesIO(fetched(digest)), mode="r:gz") as tar:
            tar.extractall(making)
        try:
            os.rename(making, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
    return folder


def fetched(digest: str) -> bytes:
    for left in reversed(range(TRIES)):
        try:
            data = get(f"runtimes/{digest}")
        except urllib.error.HTTPError as error:
            said = error.read(400).decode("utf-8", "replace")
            if error.code in (401, 403):
                stop(EXIT_DENIED, f"S3 denies access to aflow's package: {said}")
            if error.code == 404 or not left:
                stop(EXIT_FETCH, f"aflow's package cannot be fetched: {error}: {said}")
        except OSError as error:
            if not left:
                stop(EXIT_FETCH, f"aflow's package cannot be fetched: {error}")
        else:
            if hashlib.sha256(data).hexdigest() == digest:
                return data
            if not left:
                stop(EXIT_FETCH, "aflow's package in S3 is damaged")
        time.sleep(2 ** (TRIES - left) / 4)  # noqa: TID251  (there is no loop here)
    raise AssertionError


def get(key: str) -> bytes:
    place = urllib.parse.urlsplit(ENV["AFLOW_DATASTORE"])
    region = ENV.get("AFLOW_S3_REGION") or ENV.get("AWS_DEFAULT_REGION") or ENV.get("AWS_REGION")
    region = region or "us-east-1"
    endpoint = ENV.get("AFLOW_S3_ENDPOINT_URL") or ENV.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or ENV.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    parts = [place.netloc, *place.path.split("/"), *key.split("/")]
    path = "/" + "/".join(urllib.parse.quote(part, safe="-_.~") for part in parts if part)
    host = urllib.parse.urlsplit(endpoint).netloc
    headers = signed(path, host, region, credentials())
    bundle = ENV.get("AFLOW_S3_CA_BUNDLE") or ENV.get("AWS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=bundle) if endpoint.startswith("https") else None
    return read(endpoint.rstrip("/") + path, headers, context=context, timeout=60)


def signed(path: str, host: str, region: str, found: Found) -> dict[str, str]:
    key, secret, token = found
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    day, empty = now[:8], hashlib.sha256(b"").hexdigest()
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
    if token:
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"GET\n{path}\n\n{lines}\n{names}\n{empty}"
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    signing = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def credentials() -> Found:
    """Of the variables, of the container's role, or of the machine's."""
    if ENV.get("AWS_ACCESS_KEY_ID"):
        return (
            ENV["AWS_ACCESS_KEY_ID"],
            ENV.get("AWS_SECRET_ACCESS_KEY", ""),
            ENV.get("AWS_SESSION_TOKEN"),
        )
    try:
        found = json.loads(of_container() or of_machine())
        return found["AccessKeyId"], found["SecretAccessKey"], found.get("Token")
    except (OSError, ValueError, KeyError) as error:
        stop(EXIT_DENIED, f"the container has no credentials: {error!r}; give it a role: iam_role")


def of_container() -> bytes | None:
    uri = ENV.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    uri = f"http://169.254.170.2{uri}" if uri else ENV.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not uri:
        return None
    token = ENV.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if file := ENV.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        with open(file) as opened:
            token = opened.read().strip()
    return read(uri, {"authorization": token} if token else {})


def of_machine() -> bytes:
    base = "http://169.254.169.254/latest/"
    life = {"x-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = read(f"{base}api/token", life, method="PUT").decode()
    known = {"x-aws-ec2-metadata-token": token}
    roles = f"{base}meta-data/iam/security-credentials/"
    return read(roles + read(roles, known).decode().split()[0], known)


def read(
    url: str,
    headers: dict[str, str],
    *,
    method: str = "GET",
    context: ssl.SSLContext | None = None,
    timeout: float = 5,
) -> bytes:
    request = urllib.request.Request(url, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=timeout, context=context) as reply:
        return bytes(reply.read())


def stop(code: int, text: str) -> NoReturn:
    sys.stderr.write(f"error[container]: {text}\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
