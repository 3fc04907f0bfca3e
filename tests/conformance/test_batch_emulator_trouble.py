"""The emulator of AWS Batch refuses what Batch refuses, and fails as it is told to."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from engine.testing.batch.limits import OVERRIDES_MAX_BYTES
from engine.testing.keys import make_keys
from engine.testing.servers import ServerAddress, shared_server
from tests.conformance.batch_client import (
    FOREVER,
    PATIENCE_S,
    BatchClient,
    batch_client,
    code_of,
    come_true,
    ids,
    refused,
)
from tests.servers import QUEUE

MINUTE: Any = {"attemptDurationSeconds": 60}


class TestLimits:
    @pytest.mark.parametrize("name", ["-a", "a b", "a/b", "a" * 129])
    async def test_a_name_that_is_none_is_refused(self, batch: BatchClient, name: str) -> None:
        assert code_of(await refused(batch.submit("", name=name))) == "ClientException"

    async def test_a_name_of_128_letters_is_taken(self, batch: BatchClient) -> None:
        await batch.until(await batch.submit("", name="a" * 128))

    @pytest.mark.parametrize("size", [1, 10_001])
    async def test_an_array_of_another_size_is_refused(self, batch: BatchClient, size: int) -> None:
        error = await refused(batch.submit("", arrayProperties={"size": size}))
        assert code_of(error) == "ClientException"

    async def test_overrides_of_8192_bytes_are_taken_and_of_one_more_refused(
        self, batch: BatchClient
    ) -> None:
        def overrides(value: str) -> Any:
            return {"environment": [{"name": "A", "value": value}]}

        room = OVERRIDES_MAX_BYTES - len(json.dumps(overrides(""), separators=(",", ":")))
        await batch.until(await batch.submit("", containerOverrides=overrides("x" * room)))
        error = await refused(batch.submit("", containerOverrides=overrides("x" * (room + 1))))
        assert code_of(error) == "ClientException"
        assert "8192" in str(error)

    async def test_100_jobs_are_described_at_once_and_101_are_not(self, batch: BatchClient) -> None:
        describe = batch.batch.describe_jobs
        assert (await describe(jobs=["nothing"] * 100))["jobs"] == []
        assert code_of(await refused(describe(jobs=["nothing"] * 101))) == "ClientException"

    async def test_names_of_variables_that_batch_keeps_are_refused(
        self, batch: BatchClient
    ) -> None:
        own = {"environment": [{"name": "AWS_BATCH_X", "value": "1"}]}
        error = await refused(batch.submit("", containerOverrides=own))
        assert code_of(error) == "ClientException"

    @pytest.mark.parametrize("attempts", [0, 11])
    async def test_attempts_are_1_to_10(self, batch: BatchClient, attempts: int) -> None:
        error = await refused(batch.submit("", retryStrategy={"attempts": attempts}))
        assert code_of(error) == "ClientException"


class TestFaults:
    async def test_a_reply_is_lost_and_the_job_is_there(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "lost_reply", "operation": "SubmitJob", "times": 1})
        with pytest.raises(HTTPClientError):
            await batch.submit("exit 0")
        named = [{"name": "JOB_NAME", "values": [batch.name]}]
        [job] = ids(await batch.batch.list_jobs(jobQueue=QUEUE, filters=named))
        assert (await batch.until(job))["status"] == "SUCCEEDED"
        assert (await batch.until(await batch.submit("exit 0")))["status"] == "SUCCEEDED"

    async def test_requests_are_throttled(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "throttle", "operation": "SubmitJob", "times": 1})
        error = await refused(batch.submit("exit 0"))
        assert code_of(error) == "TooManyRequestsException"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        await batch.until(await batch.submit("exit 0"))

    async def test_a_job_ages_out(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "aged_out"})
        job = await batch.submit("exit 0")
        async with asyncio.timeout(PATIENCE_S):
            while (await batch.batch.describe_jobs(jobs=[job]))["jobs"]:
                pass
        named = [{"name": "JOB_NAME", "values": [batch.name]}]
        assert ids(await batch.batch.list_jobs(jobQueue=QUEUE, filters=named)) == []

    async def test_a_machine_is_reclaimed(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "reclaim", "after_s": 0.1})
        done = await batch.until(await batch.submit("trap 'exit 143' TERM; sleep 600 & wait"))
        assert done["status"] == "FAILED"
        assert done["statusReason"].startswith("Host EC2 (instance i-")
        assert done["container"]["exitCode"] == 143

    async def test_an_image_cannot_be_pulled(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "unpullable"})
        done = await batch.until(await batch.submit("exit 0"))
        assert (done["status"], done["statusReason"]) == ("FAILED", "Task failed to start")
        assert done["container"]["reason"].startswith("CannotPullContainerError")
        assert await batch.lines(done) == []

    async def test_memory_runs_out(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "oom"})
        done = await batch.until(await batch.submit(FOREVER))
        assert done["container"]["exitCode"] == 137
        reason = "OutOfMemoryError: Container killed due to memory usage"
        assert done["container"]["reason"] == reason
        assert done["attempts"][0]["container"]["reason"] == reason

    async def test_a_lost_change_is_not_seen_until_the_next(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "lost"})
        job = await batch.submit("echo started; sleep 0.2")
        seen = set()
        async with asyncio.timeout(PATIENCE_S):
            while "SUCCEEDED" not in seen:
                seen.add((await batch.job(job))["status"])
        assert seen <= {"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "SUCCEEDED"}

    async def test_a_plan_may_be_about_the_events_only(self, batch: BatchClient) -> None:
        """Each change of state is told once, but for those that a plan has told twice or lost."""
        await batch.faults(
            {"fault": "duplicate", "job": "-twice", "after_s": 0.1},
            {"fault": "lost", "job": "-lost"},
        )
        heard = await events_of(batch, "-once", "-lost", "-twice")
        once = ["PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED"]
        assert sorted(heard["-once"]) == sorted(once)
        assert heard["-lost"] == []
        assert sorted(heard["-twice"]) == sorted([*once, *once])

    async def test_a_plan_that_is_none_is_refused(self, batch: BatchClient) -> None:
        with pytest.raises(Exception, match="HTTP Error 400"):
            await batch.faults({"fault": "no-such-fault"})


async def events_of(batch: BatchClient, *names: str) -> dict[str, list[str]]:
    """The states that EventBridge told of, into a queue, of a job of each name."""
    heard: dict[str, list[str]] = {name: [] for name in names}
    async with batch.stack("sqs") as sqs, batch.stack("events") as events:
        url = (await sqs.create_queue(QueueName=batch.name))["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:123456789012:{batch.name}"
        pattern = json.dumps({"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]})
        await events.put_rule(Name=batch.name, EventPattern=pattern, State="ENABLED")
        await events.put_targets(Rule=batch.name, Targets=[{"Id": "1", "Arn": arn}])
        for name in names:
            await batch.until(await batch.submit("exit 0", name=f"{batch.name}{name}"))
        async with asyncio.timeout(PATIENCE_S):
            # The last that is told is the second news of the last job's end.
            while heard[names[-1]].count("SUCCEEDED") < 2:
                for message in await messages_of(sqs, url):
                    name = message["detail"]["jobName"].removeprefix(batch.name)
                    if name in heard:
                        heard[name].append(message["detail"]["status"])
        await events.remove_targets(Rule=batch.name, Ids=["1"])
        await events.delete_rule(Name=batch.name)
    return heard


async def messages_of(sqs: Any, url: str) -> list[Any]:
    found = (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages", [])
    for message in found:
        await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in found]


class TestAServerOfItsOwn:
    def test_is_asked_so_often_and_leaves_no_job_when_it_ends(self, tmp_path: Path) -> None:
        async def fill(address: ServerAddress) -> tuple[list[str], str]:
            async with batch_client(address) as client:
                job = await client.submit("echo $$; echo started; sleep 600")
                pid, _ = await client.lines(await client.until_printed(job, "started"))
                calls = [client.batch.describe_jobs(jobs=[job]) for _ in range(40)]
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(answer_of(call)) for call in calls]
                return [each.result() for each in asked], pid

        options = ("--queue", QUEUE, "--rate", "20", "--delay", "0.3")
        with shared_server("batch", tmp_path, options=options) as address:
            answers, pid = asyncio.run(fill(address))
        assert {"ok", "TooManyRequestsException"} == set(answers)
        asyncio.run(come_true(lambda: not Path(f"/proc/{pid}/exe").exists()))

    def test_with_keys_runs_jobs_for_nobody_else(self, tmp_path: Path) -> None:
        async def ask(address: ServerAddress, key: str) -> str:
            async with batch_client(address, key) as client:
                return await answer_of(client.batch.describe_jobs(jobs=["nothing"]))

        keys = make_keys(tmp_path / "keys.json")
        assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
        options = ("--keys", str(tmp_path / "keys.json"))
        with shared_server("batch", tmp_path, options=options) as address:
            assert asyncio.run(ask(address, keys.access_key)) == "ok"
            assert asyncio.run(ask(address, "another")) == "UnrecognizedClientException"
            url = f"{address.endpoint_url}/aflow/batch/counts"
            with pytest.raises(HTTPError, match="403"):
                urllib.request.urlopen(url, timeout=PATIENCE_S)

    @pytest.mark.parametrize("header", [{"Origin": "null"}, {"Host": "evil.example"}])
    def test_has_nothing_for_web_pages(
        self, batch_emulator: ServerAddress, header: dict[str, str]
    ) -> None:
        for path in ("/v1/submitjob", "/", "/aflow/batch/counts", "/moto-api/reset"):
            url = f"{batch_emulator.endpoint_url}{path}"
            request = urllib.request.Request(url, b"{}", header, method="POST")
            with pytest.raises(HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=PATIENCE_S)


async def answer_of(call: Any) -> str:
    try:
        await call
    except ClientError as error:
        return code_of(error)
    return "ok"
