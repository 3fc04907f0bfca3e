"""Metaflow's S3 client in its own environment: the same words and figures as s3_clients.py.

    python s3_metaflow.py up|down TAG COUNT SIZE FOLDER

Its client works by processes that it starts for each call, so there is nothing to warm up.
"""

import json
import os
import random
import resource
import sys
import time

from metaflow import S3  # type: ignore[import-not-found]  # it is in an environment of its own

BUCKET = "aflow-bench"
FILE_MIN_BYTES = 64 << 20


def cpu_now_s() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(words: list[str]) -> None:
    direction, tag, count, size_text, folder = words
    size = int(size_text)
    keys = [str(n) for n in range(int(count))]
    body = random.Random(size).randbytes(size) if size < FILE_MIN_BYTES else b""
    wall_s, cpu_s = time.perf_counter(), cpu_now_s()
    with S3(s3root=f"s3://{BUCKET}/{tag}", tmproot=folder) as s3:
        if direction == "down":
            found = s3.get_many(keys)
            took = (time.perf_counter() - wall_s, cpu_now_s() - cpu_s)
            sizes = [os.path.getsize(blob.path) for blob in found]
            if sizes != [size] * len(keys):
                raise SystemExit("Metaflow did not bring all bytes")
        else:
            if size >= FILE_MIN_BYTES:
                s3.put_files([(keys[0], os.path.join(folder, "source"))])
            else:
                s3.put_many([(key, body) for key in keys])
            took = (time.perf_counter() - wall_s, cpu_now_s() - cpu_s)
    print(json.dumps({"wall_s": took[0], "cpu_s": took[1]}))


main(sys.argv[1:])
