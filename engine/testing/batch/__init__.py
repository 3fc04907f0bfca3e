"""AWS Batch on this machine: an emulator, on moto's server, whose jobs are run.

    python -m engine.testing.batch --port 0 --queue my-queue

A job's command becomes a local process, or a container with `--runner podman`; in a queue of no-op
jobs it becomes nothing, and ends after a while. moto answers for all else of AWS at the same
address, and keeps job definitions, queues and compute environments.

`fleet` decides what happens to jobs and knows no clock; `emulator` waits and acts; `api` speaks
HTTP.
Not emulated: pulling images, IAM roles inside of containers, the time that machines take to start,
share policies, and memory limits (`--runner podman` has those).
"""
