"""The program that fetches aflow into a container: alone, small, and signing as the SDK does."""

import ast
import io
import re
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from engine.container import bootstrap
from engine.container.command import condensed, container_command
from engine.executors import batch_reasons
from engine.package.runtime import Runtime, python_tag

SOURCE = Path(bootstrap.__file__).read_text()


def test_it_stands_on_the_standard_library_alone() -> None:
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert imported <= sys.stdlib_module_names


def test_a_python_of_years_ago_comes_as_far_as_being_named() -> None:
    """What it evaluates before that: no `X | Y` and no `tuple[X]`, which came with 3.10 and 3.9."""
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    lines = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    assert ast.unparse(tree.body[1]) == "from __future__ import annotations"
    assert not [line for line in lines if re.search(r"\||\btuple\[", line)]


def test_the_command_is_small_and_the_same_program() -> None:
    command = container_command()
    assert command[:2] == ["python3", "-c"]
    assert len(command[2]) < 4096
    assert "def signed" in condensed(SOURCE)
    assert '"""' not in condensed(SOURCE)


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("path", ["/bucket/a/runtimes/0123", "/bucket/with%20space/x"])
def test_requests_are_signed_as_the_sdk_signs_them(path: str, token: str | None) -> None:
    ours = bootstrap.signed(path, "s3.eu-west-1.amazonaws.com", "eu-west-1", ("AK", "sk", token))
    request = AWSRequest("GET", f"https://s3.eu-west-1.amazonaws.com{path}")
    signer = S3SigV4Auth(Credentials("AK", "sk", token), "s3", "eu-west-1")
    stamp = datetime.strptime(ours["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    request.context["timestamp"] = stamp.strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    request.headers["X-Amz-Content-SHA256"] = ours["x-amz-content-sha256"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical: Any = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


def test_both_sides_name_the_python_alike() -> None:
    assert bootstrap.python_tag() == python_tag()


def test_the_driver_knows_its_exit_codes() -> None:
    ours = (bootstrap.EXIT_PYTHON, bootstrap.EXIT_FETCH, bootstrap.EXIT_DENIED)
    theirs = (batch_reasons.EXIT_PYTHON, batch_reasons.EXIT_FETCH, batch_reasons.EXIT_DENIED)
    assert ours == theirs


def test_an_image_with_another_python_is_refused_with_both_named() -> None:
    env = {"AFLOWJOB_PYTHON": "cpython-39 beos-m68k glibc", "AFLOWJOB_RUNTIME": "0"}
    program = container_command()[2]
    said = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert said.returncode == bootstrap.EXIT_PYTHON
    assert "cpython-39 beos-m68k glibc" in said.stderr
    assert python_tag() in said.stderr


@pytest.mark.slow
def test_the_package_holds_what_a_worker_imports(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(Runtime().pack()), mode="r:gz") as tar:
        tar.extractall(tmp_path, filter="data")
    compiled = list(tmp_path.rglob("*.pyc"))
    modules = "engine.container.main, engine.worker.main, engine.stores.s3.sdk, obstore, aioboto3"
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {modules}"
    # -S: without the site-packages of this environment.
    env = {"PATH": "/usr/bin"}
    said = subprocess.run([sys.executable, "-S", "-P", "-c", program], capture_output=True, env=env)
    assert said.returncode == 0, said.stderr.decode()
    # A module that is there uncompiled has been compiled by now, and left beside the others.
    assert len(list(tmp_path.rglob("*.pyc"))) == len(compiled), "a container compiles"
