"""Nobody pays for the AWS SDK who does not speak to AWS."""

import subprocess
import sys

OPEN = """
import asyncio, sys
from engine.config import Config
from engine.runtime import Engine
from engine.stores.s3.store import open_s3

async def main():
    await open_s3("s3://bucket/prefix", Config()).aclose()

asyncio.run(main())
print(*{"aioboto3", "aiobotocore", "boto3", "botocore", "obstore", "aiohttp"} & set(sys.modules))
"""


def test_a_store_that_is_opened_and_not_used_imports_no_sdk() -> None:
    done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
