"""The emulator of AWS Batch keeps arrays, nodes, queues and lists of jobs as Batch does."""

from typing import Any

from tests.conformance.batch_client import FOREVER, BatchClient, code_of, ids, nodes_of, refused
from tests.servers import QUEUE

MINUTE: Any = {"attemptDurationSeconds": 60}


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
        job = await batch.submit("", jobDefinition=await self.define(batch, 3, f"{say}; {FOREVER}"))
        nodes = [await batch.until_printed(f"{job}#{i}", "started") for i in range(3)]
        assert (await batch.job(job))["status"] == "RUNNING"
        said = [(await batch.lines(node))[0] for node in nodes]
        assert said == ["0/3 0 ", "1/3 0 127.0.0.1", "2/3 0 127.0.0.1"]
        assert [node["nodeDetails"]["isMainNode"] for node in nodes] == [True, False, False]
        await batch.batch.terminate_job(jobId=job, reason="seen")
        await batch.until(job)

    async def test_end_with_the_main_node(self, batch: BatchClient) -> None:
        script = f"[ $AWS_BATCH_JOB_NODE_INDEX = 0 ] && exit 4; {FOREVER}"
        job = await batch.submit("", jobDefinition=await self.define(batch, 2, script))
        done = await batch.until(job)
        assert done["status"] == "FAILED"
        assert done["attempts"][0]["container"]["exitCode"] == 4
        assert (await batch.job(f"{job}#1"))["container"]["exitCode"] in (143, 137)

    async def test_can_be_fewer_or_more_than_defined(self, batch: BatchClient) -> None:
        script = f"echo $AWS_BATCH_JOB_NUM_NODES; {FOREVER}"
        definition = await self.define(batch, 2, script)
        job = await batch.submit("", jobDefinition=definition, nodeOverrides={"numNodes": 4})
        await batch.until_printed(f"{job}#3", "4")
        assert (await batch.job(job))["nodeProperties"]["numNodes"] == 4
        await batch.batch.terminate_job(jobId=job, reason="seen")
        await batch.until(job)

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
