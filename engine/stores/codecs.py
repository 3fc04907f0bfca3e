"""Bytes <-> fewer bytes: zstd where it pays, and limits on what a stored blob may swell to.

A sample decides, so that what does not shrink costs 0.1 ms and not a pass over all of it. Values
that are read in place (arrays, tables) are never compressed. What would shrink by more than the
ratio that a reader accepts is stored as it is.
"""

from collections.abc import Sequence
from importlib import import_module

from engine.errors import StoreError
from engine.stores.base import Buffer

CODEC_MIN_BYTES = 4 << 10
CODEC_MAX_BYTES = 64 << 20
"""Above it, mapping the plain bytes beats decompressing them (1 GiB takes a second)."""
RATIO_MAX = 200
"""A blob that claims to hold more than this per stored byte is refused as a bomb."""

_LEVEL = 1  # 500 MB/s; higher levels gain 10 % of space for half the speed
_SAMPLE_BYTES = 16 << 10
_PAYS_BELOW = 0.8


def compress(parts: Sequence[Buffer], size_bytes: int) -> tuple[str, bytes] | None:
    """Compress a blob if that pays.

    Args:
        parts: the blob.
        size_bytes: their total.

    Returns:
        The codec's name and the bytes; None to store it as it is.
    """
    if not CODEC_MIN_BYTES <= size_bytes <= CODEC_MAX_BYTES:
        return None
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    compressor = import_module("zstandard").ZstdCompressor(level=_LEVEL)
    middle = size_bytes // 2
    sample = memoryview(data)[middle : middle + _SAMPLE_BYTES]
    if len(compressor.compress(sample)) > _PAYS_BELOW * len(sample):
        return None
    packed = bytes(compressor.compress(data))
    if len(packed) > _PAYS_BELOW * size_bytes or size_bytes > RATIO_MAX * len(packed):
        return None
    return "zstd", packed


def decompress(codec: str, data: Buffer, size_bytes: int) -> bytearray:
    """Undo `compress`.

    Args:
        codec: the recorded name.
        data: the stored blob.
        size_bytes: the size it is known to have had.

    Raises:
        StoreError: the codec is unknown, the data damaged, or not of that size.
    """
    if codec != "zstd":
        raise StoreError(
            f"codec {codec!r} cannot be read by this aflow",
            hint="use the aflow that wrote it, or a later one",
        )
    zstandard = import_module("zstandard")
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed != size_bytes or size_bytes > RATIO_MAX * len(data):
            raise StoreError(
                f"a blob of {len(data):,} bytes claims to hold {claimed:,}; "
                f"{size_bytes:,} are expected and {RATIO_MAX} per byte are allowed"
            )
        return bytearray(zstandard.ZstdDecompressor().decompress(data))
    except zstandard.ZstdError as error:
        raise StoreError(f"a compressed blob cannot be read: {error}") from error
