"""The emulator of AWS Batch keeps Batch's promises, as a client of the SDK sees them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionError

from engine.testing.batch.limits import OVERRIDES_MAX_BYTES
from engine.testing.servers import ServerAddress
from tests.conformance.batch_client import PATIENCE_S, BatchClient, batch_client, nodes_of
from tests.servers import BUCKET, QUEUE

MINUTE: Any = {"attemptDurationSeconds": 60}
FOREVER = "echo started; sleep 600"


@pytest.fixture
async def batch(batch_emulator: ServerAddress) -> AsyncIterator[BatchClient]:
    async with batch_client(batch_emulator) as client:
        yield client


async def refused(call: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await call
    return caught.value


async def come_true(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.02)


def code_of(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


class TestAJob:
    async def test_that_exits_with_0_has_succeeded(self, batch: BatchClient) -> None:
        done = await batch.until(await batch.submit("echo hello; exit 0"))
        assert done["status"] == "SUCCEEDED"
        assert done["container"]["exitCode"] == 0
        assert done["statusReason"] == "Essential container in task exited"
        assert done["createdAt"] <= done["startedAt"] <= done["stoppedAt"]
        assert await batch.lines(done) == ["hello"]

    async def test_that_exits_with_another_code_has_failed(self, batch: BatchClient) -> None:
        done = await batch.until(await batch.submit("exit 3"))
        assert (done["status"], done["container"]["exitCode"]) == ("FAILED", 3)
        [attempt] = done["attempts"]
        assert attempt["container"]["exitCode"] == 3
        assert attempt["statusReason"] == "Essential container in task exited"

    async def test_that_a_signal_killed_has_128_and_its_number(self, batch: BatchClient) -> None:
        done = await batch.until(await batch.submit("kill -9 $$"))
        assert done["container"]["exitCode"] == 137

    async def test_passes_every_state_in_order(self, batch: BatchClient) -> None:
        await batch.faults({"fault": "late", "after_s": 0.3})
        job = await batch.submit("exit 0")
        seen: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while "SUCCEEDED" not in seen:
                status = (await batch.job(job))["status"]
                seen += [status] if status not in seen else []
        order = ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED"]
        assert seen == [status for status in order if status in seen]
        assert {"SUBMITTED", "SUCCEEDED"} <= set(seen)

    async def test_whose_program_is_not_there_says_so(self, batch: BatchClient) -> None:
        job = await batch.submit("", containerOverrides={"command": ["/no/such/program"]})
        done = await batch.until(job)
        assert done["status"] == "FAILED"
        assert done["statusReason"] == "Task failed to start"
        assert done["container"]["reason"].startswith("CannotStartContainerError")
        assert "exitCode" not in done["container"]

    async def test_leaves_no_process_of_its_group(self, batch: BatchClient) -> None:
        done = await batch.until(await batch.submit("sleep 600 & echo $!"))
        [pid] = await batch.lines(done)
        await come_true(lambda: not Path(f"/proc/{pid}/exe").exists())


class TestTheEnvironment:
    async def test_is_that_of_a_container_of_batch(self, batch: BatchClient) -> None:
        script = 'echo "$AWS_BATCH_JOB_ID $AWS_BATCH_JOB_ATTEMPT $AWS_BATCH_JQ_NAME"'
        script += '; echo "$AWS_BATCH_CE_NAME"'
        job = await batch.submit(script)
        said = await batch.lines(await batch.until(job))
        assert said == [f"{job} 1 {QUEUE}", QUEUE]

    async def test_overrides_come_over_the_definition(self, batch: BatchClient) -> None:
        given = [{"name": "A", "value": "definition"}, {"name": "B", "value": "definition"}]
        definition = await batch.define('echo "$A $B"', container={"environment": given})
        changed = {"environment": [{"name": "B", "value": "override"}]}
        job = await batch.submit("", jobDefinition=definition, containerOverrides=changed)
        assert await batch.lines(await batch.until(job)) == ["definition override"]

    async def test_parameters_stand_in_for_references(self, batch: BatchClient) -> None:
        definition = await batch.define("", parameters={"what": "nothing"})
        command = {"command": ["echo", "Ref::what", "Ref::unknown"]}
        job = await batch.submit(
            "", jobDefinition=definition, containerOverrides=command, parameters={"what": "it"}
        )
        assert await batch.lines(await batch.until(job)) == ["it Ref::unknown"]

    async def test_a_job_reaches_the_rest_of_aws(self, batch: BatchClient) -> None:
        script = "import os, urllib.request as r; "
        script += f"print(r.urlopen(os.environ['AWS_ENDPOINT_URL'] + '/{BUCKET}').status)"
        job = await batch.submit("", containerOverrides={"command": ["python", "-c", script]})
        assert await batch.lines(await batch.until(job)) == ["200"]


class TestLogs:
    async def test_arrive_while_the_job_runs(self, batch: BatchClient) -> None:
        job = await batch.submit("echo first; sleep 600")
        running = await batch.until_printed(job, "first")
        assert running["status"] == "RUNNING"
        await batch.batch.terminate_job(jobId=job, reason="seen")
        await batch.until(job)

    async def test_hold_both_streams_and_a_last_line_without_an_end(
        self, batch: BatchClient
    ) -> None:
        done = await batch.until(await batch.submit("echo out; echo err >&2; printf rest"))
        assert await batch.lines(done) == ["out", "err", "rest"]

    async def test_of_each_attempt_are_a_stream(self, batch: BatchClient) -> None:
        job = await batch.submit(
            "echo $AWS_BATCH_JOB_ATTEMPT; exit 1", retryStrategy={"attempts": 2}
        )
        done = await batch.until(job)
        streams = [each["container"]["logStreamName"] for each in done["attempts"]]
        assert [await batch.lines_of(stream) for stream in streams] == [["1"], ["2"]]


class TestAnArray:
    async def test_runs_a_child_for_each_index(self, batch: BatchClient) -> None:
        job = await batch.submit(
            "echo $AWS_BATCH_JOB_ARRAY_INDEX; exit 0", arrayProperties={"size": 3}
        )
        done = await batch.until(job)
        assert done["status"] == "SUCCEEDED"
        assert done["arrayProperties"]["size"] == 3
        assert done["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 3
        children = (await batch.batch.describe_jobs(jobs=[f"{job}:{i}" for i in range(3)]))["jobs"]
        assert [child["arrayProperties"]["index"] for child in children] == [0, 1, 2]
        assert [await batch.lines(child) for child in children] == [["0"], ["1"], ["2"]]

    async def test_has_failed_when_all_ended_and_one_failed(self, batch: BatchClient) -> None:
        job = await batch.submit("[ $AWS_BATCH_JOB_ARRAY_INDEX != 1 ]", arrayProperties={"size": 3})
        done = await batch.until(job)
        assert done["status"] == "FAILED"
        assert done["statusReason"] == "Array Child Job failed"
        summary = done["arrayProperties"]["statusSummary"]
        assert (summary["SUCCEEDED"], summary["FAILED"]) == (2, 1)

    async def test_is_pending_while_its_children_run(self, batch: BatchClient) -> None:
        job = await batch.submit(FOREVER, arrayProperties={"size": 2})
        running = await batch.until_true(
            job, lambda job: job["arrayProperties"]["statusSummary"]["RUNNING"] == 2
        )
        assert running["status"] == "PENDING"
        await batch.batch.terminate_job(jobId=job, reason="enough")
        done = await batch.until(job)
        assert done["arrayProperties"]["statusSummary"]["FAILED"] == 2

    async def test_in_sequence_runs_child_after_child(self, batch: BatchClient) -> None:
        job = await batch.submit(
            "[ $AWS_BATCH_JOB_ARRAY_INDEX != 1 ]",
            arrayProperties={"size": 3},
            dependsOn=[{"type": "SEQUENTIAL"}],
        )
        await batch.until(job)
        first, second, third = [await batch.job(f"{job}:{i}") for i in range(3)]
        assert first["stoppedAt"] <= second["startedAt"]
        assert third["statusReason"] == "Dependent Job failed"

    async def test_waits_for_the_like_children_of_another(self, batch: BatchClient) -> None:
        one = await batch.submit("[ $AWS_BATCH_JOB_ARRAY_INDEX != 1 ]", arrayProperties={"size": 2})
        two = await batch.submit(
            "exit 0", arrayProperties={"size": 2}, dependsOn=[{"jobId": one, "type": "N_TO_N"}]
        )
        await batch.until(two)
        ends = [(await batch.job(f"{two}:{i}"))["status"] for i in range(2)]
        assert ends == ["SUCCEEDED", "FAILED"]


class TestDependencies:
    async def test_a_job_starts_after_what_it_depends_on(self, batch: BatchClient) -> None:
        first = await batch.submit("sleep 0.1")
        second = await batch.submit("exit 0", dependsOn=[{"jobId": first}])
        done = await batch.until(second)
        assert done["startedAt"] >= (await batch.job(first))["stoppedAt"]

    async def test_a_job_fails_with_what_it_depends_on(self, batch: BatchClient) -> None:
        first = await batch.submit("exit 1")
        second = await batch.submit("exit 0", dependsOn=[{"jobId": first}])
        done = await batch.until(second)
        assert (done["status"], done["statusReason"]) == ("FAILED", "Dependent Job failed")
        assert "startedAt" not in done

    async def test_on_a_job_that_there_is_not_are_refused(self, batch: BatchClient) -> None:
        error = await refused(batch.submit("", dependsOn=[{"jobId": "nothing"}]))
        assert code_of(error) == "ClientException"


class TestRetries:
    async def test_are_made_until_an_attempt_succeeds(self, batch: BatchClient) -> None:
        job = await batch.submit("[ $AWS_BATCH_JOB_ATTEMPT = 3 ]", retryStrategy={"attempts": 5})
        done = await batch.until(job)
        assert done["status"] == "SUCCEEDED"
        codes = [each["container"]["exitCode"] for each in done["attempts"]]
        assert codes == [1, 1, 0]

    async def test_of_the_definition_count_too(self, batch: BatchClient) -> None:
        definition = await batch.define("exit 1", retryStrategy={"attempts": 2})
        done = await batch.until(await batch.submit("", jobDefinition=definition))
        assert len(done["attempts"]) == 2

    async def test_stop_where_a_condition_says_exit(self, batch: BatchClient) -> None:
        rules = [
            {"onExitCode": "7", "action": "EXIT"},
            {"onReason": "*", "action": "RETRY"},
        ]
        strategy = {"attempts": 3, "evaluateOnExit": rules}
        for code, attempts in ((7, 1), (8, 3)):
            done = await batch.until(await batch.submit(f"exit {code}", retryStrategy=strategy))
            assert len(done["attempts"]) == attempts

    async def test_can_be_for_lost_machines_only(self, batch: BatchClient) -> None:
        rules = [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onReason": "*", "action": "EXIT"},
        ]
        strategy = {"attempts": 3, "evaluateOnExit": rules}
        await batch.faults({"fault": "reclaim", "attempts": [1]})
        script = f"[ $AWS_BATCH_JOB_ATTEMPT = 1 ] && {{ {FOREVER}; }}; exit 5"
        done = await batch.until(await batch.submit(script, retryStrategy=strategy))
        first, second = done["attempts"]
        assert first["statusReason"].startswith("Host EC2 (instance i-")
        assert first["statusReason"].endswith(") terminated.")
        assert second["container"]["exitCode"] == 5


class TestTimeOuts:
    async def test_end_a_job_for_good(self, batch: BatchClient) -> None:
        job = await batch.submit(FOREVER, timeout=MINUTE, retryStrategy={"attempts": 3})
        done = await batch.until(job)
        assert done["status"] == "FAILED"
        assert done["statusReason"] == "Job attempt duration exceeded timeout"
        assert done["timeout"] == MINUTE
        assert len(done["attempts"]) == 1

    async def test_of_the_definition_count_too(self, batch: BatchClient) -> None:
        definition = await batch.define(FOREVER, timeout=MINUTE)
        done = await batch.until(await batch.submit("", jobDefinition=definition))
        assert done["statusReason"] == "Job attempt duration exceeded timeout"

    async def test_below_a_minute_are_refused(self, batch: BatchClient) -> None:
        short = {"attemptDurationSeconds": 59}
        assert code_of(await refused(batch.submit("", timeout=short))) == "ClientException"
        assert code_of(await refused(batch.define("", timeout=short))) == "ClientException"


class TestTermination:
    async def test_asks_the_job_first(self, batch: BatchClient) -> None:
        script = "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
        job = await batch.submit(script, retryStrategy={"attempts": 3})
        await batch.until_printed(job, "ready")
        await batch.batch.terminate_job(jobId=job, reason="no longer wanted")
        done = await batch.until(job)
        assert (done["status"], done["statusReason"]) == ("FAILED", "no longer wanted")
        assert done["isTerminated"] is True
        assert done["container"]["exitCode"] == 9
        assert await batch.lines(done) == ["ready", "asked"]
        assert len(done["attempts"]) == 1

    async def test_kills_a_job_that_does_not_listen(self, batch: BatchClient) -> None:
        job = await batch.submit("trap '' TERM; echo ready; while :; do sleep 0.01; done")
        await batch.until_printed(job, "ready")
        await batch.batch.terminate_job(jobId=job, reason="now")
        assert (await batch.until(job))["container"]["exitCode"] == 137

    async def test_of_an_ended_job_changes_nothing(self, batch: BatchClient) -> None:
        job = await batch.submit("exit 0")
        await batch.until(job)
        await batch.batch.terminate_job(jobId=job, reason="too late")
        done = await batch.job(job)
        assert (done["status"], done["isTerminated"]) == ("SUCCEEDED", False)

    async def test_cancelling_spares_what_runs(self, batch: BatchClient) -> None:
        running = await batch.submit(FOREVER)
        waiting = await batch.submit("exit 0", dependsOn=[{"jobId": running}])
        await batch.until(running, "RUNNING")
        for job in (running, waiting):
            await batch.batch.cancel_job(jobId=job, reason="not needed")
        done = await batch.until(waiting)
        assert (done["status"], done["statusReason"]) == ("FAILED", "not needed")
        assert done["isCancelled"] is True
        assert (await batch.job(running))["status"] == "RUNNING"
        await batch.batch.terminate_job(jobId=running, reason="over")
        await batch.until(running)


class TestManyNodes:
    async def define(self, batch: BatchClient, count: int, script: str) -> str:
        made = await batch.batch.register_job_definition(
            jobDefinitionName=f"{batch.name}-nodes",
            type="multinode",
            nodeProperties=nodes_of(count, script),
        )
        return str(made["jobDefinitionArn"])

    async def test_run_at_once_and_know_their_places(self, batch: BatchClient) -> None:
        say = 'echo "$AWS_BATCH_JOB_NODE_INDEX/$AWS_BATCH_JOB_NUM_NODES'
        say += ' $AWS_BATCH_JOB_MAIN_NODE_INDEX $AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"'
        definition = await self.define(batch, 3, f"{say}; sleep 0.2")
        job = await batch.submit("", jobDefinition=definition)
        done = await batch.until(job)
        assert (done["status"], done["nodeProperties"]["numNodes"]) == ("SUCCEEDED", 3)
        nodes = [await batch.job(f"{job}#{i}") for i in range(3)]
        said = [await batch.lines(node) for node in nodes]
        assert said == [["0/3 0 "], ["1/3 0 127.0.0.1"], ["2/3 0 127.0.0.1"]]
        assert [node["nodeProperties"]["isMainNode"] for node in nodes] == [True, False, False]

    async def test_end_with_the_main_node(self, batch: BatchClient) -> None:
        script = f"[ $AWS_BATCH_JOB_NODE_INDEX = 0 ] && exit 4; {FOREVER}"
        job = await batch.submit("", jobDefinition=await self.define(batch, 2, script))
        done = await batch.until(job)
        assert done["status"] == "FAILED"
        assert done["attempts"][0]["container"]["exitCode"] == 4
        assert (await batch.job(f"{job}#1"))["container"]["exitCode"] in (143, 137)

    async def test_can_be_fewer_or_more_than_defined(self, batch: BatchClient) -> None:
        definition = await self.define(batch, 2, "echo $AWS_BATCH_JOB_NUM_NODES")
        job = await batch.submit("", jobDefinition=definition, nodeOverrides={"numNodes": 4})
        assert (await batch.until(job))["nodeProperties"]["numNodes"] == 4
        assert await batch.lines(await batch.job(f"{job}#3")) == ["4"]

    async def test_are_listed_by_their_job(self, batch: BatchClient) -> None:
        job = await batch.submit("", jobDefinition=await self.define(batch, 2, "exit 0"))
        await batch.until(job)
        found = await batch.batch.list_jobs(multiNodeJobId=job, jobStatus="SUCCEEDED")
        assert [each["jobId"] for each in found["jobSummaryList"]] == [f"{job}#0", f"{job}#1"]

    async def test_are_shown_with_their_definition(self, batch: BatchClient) -> None:
        arn = await self.define(batch, 2, "exit 0")
        found = await batch.batch.describe_job_definitions(jobDefinitions=[arn])
        assert found["jobDefinitions"][0]["nodeProperties"]["numNodes"] == 2


class TestAQueue:
    async def test_runs_as_much_at_once_as_its_machines_hold(self, batch: BatchClient) -> None:
        queue = await batch.queue(maxvCpus=1)
        first = await batch.submit(FOREVER, jobQueue=queue)
        second = await batch.submit("exit 0", jobQueue=queue)
        await batch.until(first, "RUNNING")
        waiting = await batch.until(second, "RUNNABLE")
        assert "statusReason" not in waiting
        await batch.batch.terminate_job(jobId=first, reason="make room")
        done = await batch.until(second)
        assert done["startedAt"] >= (await batch.job(first))["stoppedAt"]

    async def test_says_why_a_job_can_never_start(self, batch: BatchClient) -> None:
        queue = await batch.queue(maxvCpus=2)
        wide = await batch.define("exit 0", container={"vcpus": 4})
        job = await batch.submit("", jobQueue=queue, jobDefinition=wide)
        stuck = await batch.until_true(job, lambda job: "statusReason" in job)
        assert stuck["status"] == "RUNNABLE"
        assert stuck["statusReason"].startswith("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX")
        await batch.batch.cancel_job(jobId=job, reason="seen")

    async def test_knows_how_large_its_machines_are(self, batch: BatchClient) -> None:
        async with batch.stack("iam") as iam:
            await iam.create_instance_profile(InstanceProfileName=batch.name)
        queue = await batch.queue(
            type="EC2",
            minvCpus=0,
            maxvCpus=256,
            instanceTypes=["m5.large"],
            instanceRole=batch.name,
        )
        large = await batch.define("exit 0", container={"memory": 64 * 1024})
        job = await batch.submit("", jobQueue=queue, jobDefinition=large)
        stuck = await batch.until_true(job, lambda job: "statusReason" in job)
        assert stuck["statusReason"].startswith("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")
        await batch.batch.cancel_job(jobId=job, reason="seen")

    async def test_that_is_disabled_takes_no_job(self, batch: BatchClient) -> None:
        queue = await batch.queue()
        await batch.batch.update_job_queue(jobQueue=queue, state="DISABLED")
        assert code_of(await refused(batch.submit("", jobQueue=queue))) == "ClientException"

    async def test_whose_machines_are_disabled_starts_nothing(self, batch: BatchClient) -> None:
        queue = await batch.queue()
        await batch.batch.update_compute_environment(computeEnvironment=queue, state="DISABLED")
        job = await batch.submit("", jobQueue=queue)
        stuck = await batch.until_true(job, lambda job: "statusReason" in job)
        assert stuck["status"] == "RUNNABLE"
        assert stuck["statusReason"].startswith("ACTION_REQUIRED")
        await batch.batch.cancel_job(jobId=job, reason="seen")

    async def test_that_there_is_not_takes_no_job(self, batch: BatchClient) -> None:
        assert code_of(await refused(batch.submit("", jobQueue="nowhere"))) == "ClientException"

    async def test_takes_no_job_without_a_definition(self, batch: BatchClient) -> None:
        error = await refused(batch.submit("", jobDefinition="nothing"))
        assert code_of(error) == "ClientException"


class TestListing:
    async def test_tells_running_jobs_unless_asked_otherwise(self, batch: BatchClient) -> None:
        queue = await batch.queue()
        done = await batch.submit("exit 0", jobQueue=queue)
        await batch.until(done)
        running = await batch.submit(FOREVER, jobQueue=queue)
        await batch.until(running, "RUNNING")
        list_jobs = batch.batch.list_jobs
        assert ids(await list_jobs(jobQueue=queue)) == [running]
        assert ids(await list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")) == [done]
        await batch.batch.terminate_job(jobId=running, reason="seen")
        await batch.until(running)

    async def test_finds_jobs_by_name_whatever_their_state(self, batch: BatchClient) -> None:
        one = await batch.submit("exit 0", name=f"{batch.name}-one")
        two = await batch.submit("exit 1", name=f"{batch.name}-two")
        for job in (one, two):
            await batch.until(job)
        for pattern, wanted in (("-ONE", {one}), ("-*", {one, two}), ("", set())):
            named = [{"name": "JOB_NAME", "values": [f"{batch.name}{pattern}"]}]
            found = await batch.batch.list_jobs(jobQueue=QUEUE, filters=named)
            assert set(ids(found)) == wanted

    async def test_comes_in_pages(self, batch: BatchClient) -> None:
        job = await batch.submit("exit 0", arrayProperties={"size": 5})
        await batch.until(job)
        found: list[str] = []
        pages = 0
        more: dict[str, str] = {}
        while pages == 0 or more:
            page = await batch.batch.list_jobs(
                arrayJobId=job, jobStatus="SUCCEEDED", maxResults=2, **more
            )
            found += ids(page)
            more = {"nextToken": page["nextToken"]} if "nextToken" in page else {}
            pages += 1
        assert (found, pages) == ([f"{job}:{i}" for i in range(5)], 3)

    async def test_tells_how_a_job_ended(self, batch: BatchClient) -> None:
        job = await batch.submit("exit 6", arrayProperties={"size": 2})
        await batch.until(job)
        found = await batch.batch.list_jobs(arrayJobId=job, jobStatus="FAILED")
        first = found["jobSummaryList"][0]
        assert first["container"]["exitCode"] == 6
        assert first["arrayProperties"]["index"] == 0


def ids(found: Any) -> list[str]:
    return [each["jobId"] for each in found["jobSummaryList"]]


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
        with pytest.raises(ConnectionError):
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

    async def test_a_plan_that_is_none_is_refused(self, batch: BatchClient) -> None:
        with pytest.raises(Exception, match="HTTP Error 400"):
            await batch.faults({"fault": "no-such-fault"})


class TestNoOps:
    async def test_take_their_time_and_run_nothing(self, batch: BatchClient) -> None:
        queue = await batch.queue(tags={"aflow:no-op-seconds": "0.1"}, maxvCpus=100)
        job = await batch.submit("exit 1", jobQueue=queue, arrayProperties={"size": 100})
        done = await batch.until(job)
        assert done["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 100
        child = await batch.job(f"{job}:99")
        assert child["container"]["exitCode"] == 0
        assert child["stoppedAt"] - child["startedAt"] >= 100
        assert await batch.lines(child) == []

    async def test_can_be_terminated(self, batch: BatchClient) -> None:
        queue = await batch.queue(tags={"aflow:no-op-seconds": "600"})
        job = await batch.submit("", jobQueue=queue)
        await batch.until(job, "RUNNING")
        await batch.batch.terminate_job(jobId=job, reason="enough")
        done = await batch.until(job)
        assert (done["statusReason"], done["container"]["exitCode"]) == ("enough", 143)
