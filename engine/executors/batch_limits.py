"""What AWS Batch allows: numbers, each with its source and the day it was read. Pure."""

API_CALLS_S = 50.0
"""All calls of all who share an account and region, fixed. Source: AWS re:Post, "AWS Batch API
throttling" (read 2026-11-24)."""

OUR_CALLS_S = 8.0
"""Our share of them: others have jobs, too (FAULTS R-15: at most 10)."""

DESCRIBE_MAX = 100
"""Ids of one DescribeJobs. Source: API Reference, DescribeJobs, `jobs` (read 2026-11-24)."""

ARRAY_MIN, ARRAY_MAX = 2, 10_000
"""Children of an array job. Source: User Guide, "Array jobs" (read 2026-11-24)."""

OVERRIDES_MAX_BYTES = 8_192
"""The containerOverrides of a SubmitJob. Source: the error's text, "Container Overrides length must
be at most 8192" (read 2026-11-24)."""

DEFINITION_MAX_BYTES = 24 * 1024
"""A job definition's containerProperties. Source: User Guide, "Service quotas": 24 KiB (read
2026-11-24)."""

NAME_MAX = 128
"""Of a job or a definition: letters, digits, - and _. Source: API Reference, SubmitJob, `jobName`
(read 2026-11-24)."""

TIMEOUT_MIN_S = 60
"""Source: API Reference, JobTimeout (read 2026-11-24)."""

ATTEMPTS_MAX = 10
"""Source: API Reference, RetryStrategy (read 2026-11-24)."""

TAGS_MAX = 50
TAG_KEY_MAX, TAG_VALUE_MAX = 128, 256
"""Source: API Reference, SubmitJob, `tags` (read 2026-11-24)."""

STOP_GRACE_S = 30.0
"""Between SIGTERM and SIGKILL. Source: User Guide, "Job timeouts" (read 2026-11-24)."""

KEPT_S = 86_400.0
"""How long an ended job can be described, about. Source: nextflow issue 7302 (read 2026-11-24)."""

FARGATE_SIZES = {
    0.25: (512, 1024, 2048),
    0.5: tuple(range(1024, 4096 + 1, 1024)),
    1.0: tuple(range(2048, 8192 + 1, 1024)),
    2.0: tuple(range(4096, 16384 + 1, 1024)),
    4.0: tuple(range(8192, 30720 + 1, 1024)),
    8.0: tuple(range(16384, 61440 + 1, 4096)),
    16.0: tuple(range(32768, 122880 + 1, 8192)),
}
"""vCPUs to MiB of memory. Source: API Reference, ResourceRequirement (read 2026-11-24)."""

EPHEMERAL_MIN_GIB, EPHEMERAL_MAX_GIB = 21, 200
"""Source: API Reference, EphemeralStorage (read 2026-11-24)."""
