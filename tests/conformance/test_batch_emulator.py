"""The emulator of AWS Batch runs a job as Batch does, as a client of the SDK sees it."""

import asyncio
from pathlib import Path
from typing import Any

from tests.conformance.batch_client import (
    FOREVER,
    PATIENCE_S,
    BatchClient,
    code_of,
    come_true,
    refused,
)
from tests.servers import BUCKET, QUEUE

MINUTE: Any = {"attemptDurationSeconds": 60}


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

    async def test_leaves_no_process_that_left_its_session(self, batch: BatchClient) -> None:
        done = await batch.until(await batch.submit("setsid sleep 600 >/dev/null 2>&1 & echo $!"))
        [pid] = await batch.lines(done)
        await come_true(lambda: not Path(f"/proc/{pid}/exe").exists())

    async def test_whose_log_cannot_be_opened_says_so(self, batch: BatchClient) -> None:
        options = {"logDriver": "awslogs", "options": {"awslogs-group": "x" * 600}}
        definition = await batch.define("exit 0", container={"logConfiguration": options})
        done = await batch.until(await batch.submit("", jobDefinition=definition))
        assert done["status"] == "FAILED"
        assert done["container"]["reason"].startswith("CannotStartContainerError")

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
