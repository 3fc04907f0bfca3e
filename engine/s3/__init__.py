"""Objects in S3, for people's own data: `from engine import S3`. See sync.py, and aio.py for its
awaited twin; the datastore is engine.stores.s3.
"""

from engine.s3.objects import RangeInfo, S3GetObject, S3Object, S3PutObject
from engine.s3.sync import S3

__all__ = ["S3", "RangeInfo", "S3GetObject", "S3Object", "S3PutObject"]
