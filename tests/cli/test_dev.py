"""`aflow dev`: the servers start once, serve, and end as they were started."""

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest

from engine.cli import devstack
from engine.cli.devstack import DevStack, birth_of
from tests.cli.conftest import Call

pytestmark = pytest.mark.slow


DENIED = "UnrecognizedClientException"
CALLS = """
import boto3
for call in (
    lambda: len(boto3.client("s3").list_buckets()["Buckets"]),
    lambda: boto3.client("batch").describe_job_queues()["jobQueues"][0]["jobQueueName"],
):
    try:
        print(call())
    except Exception as error:
        print(error.response["Error"]["Code"])
"""


def state(folder: Path, *, pid: int, birth: str) -> None:
    """Leave behind what a process wrote that was killed."""
    folder.mkdir()
    stack = DevStack(pid, birth, str(folder), (), "aflow-dev", {})
    (folder / "dev.json").write_bytes(msgspec.json.encode(stack))


def calls(variables: dict[str, str]) -> list[str]:
    """How many buckets S3 tells of and which queue Batch has, or by what they refuse to."""
    env = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run([sys.executable, "-c", CALLS], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=10.0).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return True
    except OSError:
        return False
    return True


def test_servers_start_once_serve_and_end(aflow: Call, tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    first = aflow("dev", "up", "--folder", folder, "--json")
    try:
        assert first.code == 0, first.err
        stack = json.loads(first.out)
        assert (stack["schema"], stack["state"]) == ("aflow/dev/1", "started")
        urls = [server["endpoint_url"] for server in stack["servers"]]
        assert [server["name"] for server in stack["servers"]] == ["s3", "batch"]
        assert all(answers(url) for url in urls)
        assert os.getsid(stack["pid"]) == stack["pid"]  # no terminal's end reaches it

        again = json.loads(aflow("dev", "up", "--folder", folder, "--json").out)
        assert (again["state"], again["pid"]) == ("running", stack["pid"])
        assert "running" in aflow("dev", "status", "--folder", folder).out

        exports = aflow("dev", "env", "--folder", folder).lines
        assert f"export AWS_ENDPOINT_URL={urls[1]}" in exports
        assert f"export AWS_ENDPOINT_URL_S3={urls[0]}" in exports
        assert (
            json.loads(aflow("dev", "env", "--folder", folder, "--json").out) == stack["variables"]
        )
        assert stat.S_IMODE((folder / "dev.json").stat().st_mode) == 0o600
        strangers = {"AWS_ACCESS_KEY_ID": "ak", "AWS_SECRET_ACCESS_KEY": "sksksksk"}
        assert calls({**stack["variables"], **strangers}) == ["InvalidAccessKeyId", DENIED]
        assert calls(stack["variables"]) == ["1", "aflow-dev"]

        refused = aflow("dev", "down", "--folder", folder, "--delete", "--json")
        assert json.loads(refused.out)["was_running"] is True
        assert not any(answers(url) for url in urls)
        assert birth_of(stack["pid"]) is None
        assert not (folder / "seaweedfs.data").exists()
    finally:
        aflow("dev", "down", "--folder", folder)


def test_down_spares_a_process_that_has_the_pid_by_now(aflow: Call, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        state(tmp_path / "dev", pid=stranger.pid, birth="0")
        done = aflow("dev", "down", "--folder", tmp_path / "dev")
        assert (done.code, done.out) == (0, "aflow dev: nothing was running\n")
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def test_what_a_killed_process_left_is_not_running(aflow: Call, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as dead:
        birth = birth_of(dead.pid)
        assert birth
        dead.send_signal(signal.SIGKILL)
    state(tmp_path / "dev", pid=dead.pid, birth=birth)
    done = aflow("dev", "status", "--folder", tmp_path / "dev")
    assert done.out == "aflow dev: nothing is running\n"


def test_without_servers_there_are_no_variables(aflow: Call, tmp_path: Path) -> None:
    done = aflow("dev", "env", "--folder", tmp_path / "dev")
    assert done.code == 5
    assert done.err.startswith("error[not-found]: no servers of `aflow dev` are running")
    assert "hint: aflow dev up" in done.err


def test_without_its_packages_up_says_which_and_how_to_get_them(
    aflow: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devstack, "NEEDED", ("no_such_package",))
    done = aflow("dev", "up", "--folder", tmp_path / "dev")
    assert done.code == 3
    assert "not installed: no_such_package" in done.err
    assert "hint: pip install 'aflow-engine[dev]'" in done.err


def test_a_folder_that_cannot_be_one_is_told(aflow: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = aflow("dev", "up", "--folder", tmp_path / "file" / "dev")
    assert done.code == 3
    assert "hint: choose another with --folder DIR" in done.err


def test_servers_that_do_not_start_say_why(
    aflow: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devstack, "SERVER", "engine.testing.no_such_module")
    done = aflow("dev", "up", "--folder", tmp_path / "dev")
    assert done.code == 6
    assert "No module named engine.testing.no_such_module" in done.err
