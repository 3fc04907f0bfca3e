"""Containers as containers: `podman run`, with the memory limit that was asked for.

The network is the host's, so that a job reaches this emulator and an S3 server on loopback.
Nothing is pulled: an image has to be there (`podman import`, `podman build`).

Source: podman-run(1), "Exit Status": 125 is podman's own failure, 126 and 127 a command that cannot
be started.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from subprocess import DEVNULL

from engine.testing.batch.fleet import OUT_OF_MEMORY, Start
from engine.testing.batch.jobs import Container, Job, Outcome
from engine.testing.batch.processes import ProcessRunner, container_variables, key_of

_PODMAN_FAILED = 125
_CANNOT_START = (126, 127)


class PodmanRunner(ProcessRunner):
    """Runs containers with podman, from images of this machine."""

    def signal(self, job: Job, node: int, number: int) -> None:
        """Send a signal to a container's first process, which its others do not outlive."""
        if number != signal.SIGKILL:
            super().signal(job, node, number)  # podman passes it on
        elif key_of(job, node) in self.running:
            _podman_now("kill", _name(job.id, node))

    def kill_all(self) -> None:
        if self.running:
            _podman_now("kill", *(_name(job, node) for job, node in self.running))

    def _command(
        self, start: Start, container: Container, folder: str
    ) -> tuple[Sequence[str], dict[str, str]]:
        given = {**self.variables, **container.environment, **container_variables(start)}
        words = ["podman", "run", "--init", "--pull", "never", "--network", "host"]
        words += ["--name", _name(start.job.id, start.node)]
        if container.memory_mib:
            words += ["--memory", f"{container.memory_mib}m"]
        for name, value in given.items():
            words += ["--env", f"{name}={value}"]
        # podman has settings of its own in the environment.
        return [*words, container.image, *container.command], dict(os.environ)

    async def _outcome(self, start: Start, code: int) -> Outcome:
        name = _name(start.job.id, start.node)
        killed = await _podman("inspect", "--format", "{{.State.OOMKilled}}", name)
        await _podman("rm", "--force", "--time", "0", name)
        if killed == "true":
            return OUT_OF_MEMORY
        image = start.job.work.nodes[start.node].image
        if code == _PODMAN_FAILED:
            return Outcome(None, f"CannotPullContainerError: {image} is not on this machine")
        if code in _CANNOT_START:
            return Outcome(None, f"CannotStartContainerError: {image}: see the log")
        return await super()._outcome(start, code)


def _name(job_id: str, node: int) -> str:
    return f"aflow-{job_id.replace(':', '-')}-{node}"


async def _podman(*words: str) -> str:
    """What podman says; "" where it refuses."""
    process = await asyncio.create_subprocess_exec(
        "podman", *words, stdin=DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=DEVNULL
    )
    said, _ = await process.communicate()
    return said.decode().strip() if process.returncode == 0 else ""


def _podman_now(*words: str) -> None:
    # It takes 0.2 s, in which the emulator stands still: a kill is rare.
    subprocess.run(["podman", *words], stdout=DEVNULL, stderr=DEVNULL, check=False)
