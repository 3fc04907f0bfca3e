"""Compression is used where it pays, and what it unpacks to is bounded."""

import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.stores import codecs
from engine.stores.codecs import CODEC_MAX_BYTES, CODEC_MIN_BYTES, RATIO_MAX, compress, decompress

TEXT = b"".join(b"line %d of a log\n" % n for n in range(3000))


def test_text_shrinks_and_comes_back() -> None:
    for parts in ([TEXT], [TEXT[:100], memoryview(TEXT)[100:]]):
        done = compress(parts, len(TEXT))
        assert done is not None
        codec, data = done
        assert codec == "zstd"
        assert len(data) < len(TEXT) / 2
        assert decompress(codec, data, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a" * (CODEC_MIN_BYTES - 1),
        os.urandom(100_000),
        os.urandom(50_000) + b"ab" * 3000 + os.urandom(50_000),
        b"\0" * 10_000_000,
    ],
    ids=["empty", "short", "random", "mostly random", "beyond the ratio"],
)
def test_what_does_not_pay_is_left_alone(data: bytes) -> None:
    assert compress([data], len(data)) is None


def test_what_is_mapped_faster_than_unpacked_is_left_alone() -> None:
    assert compress([TEXT], CODEC_MAX_BYTES + 1) is None


@given(st.binary(min_size=1, max_size=200), st.integers(CODEC_MIN_BYTES, 50_000))
def test_whatever_is_compressed_comes_back(seed: bytes, size: int) -> None:
    data = (seed * (size // len(seed) + 1))[:size]
    done = compress([data], size)
    if done:
        assert size <= RATIO_MAX * len(done[1])
        assert decompress(*done, size) == data


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (packed(TEXT), len(TEXT) + 1),
        (packed(TEXT), 5),
        (packed(b"\0" * 10_000_000), 10_000_000),
        (packed(TEXT)[:-5], len(TEXT)),
        (b"not zstd at all", 10),
        (b"", 0),
        (zstandard.ZstdCompressor(write_content_size=False).compress(TEXT), len(TEXT)),
    ],
    ids=["larger", "smaller", "bomb", "cut", "garbage", "nothing", "size unknown"],
)
def test_bombs_and_damage_are_refused(data: bytes, size: int) -> None:
    with pytest.raises(StoreError):
        decompress("zstd", data, size)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = packed(b"\0" * (1 << 28))
    assert len(bomb) * codecs.RATIO_MAX < 1 << 28
    with pytest.raises(StoreError, match="200 per byte"):
        decompress("zstd", bomb, 1 << 28)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(StoreError, match="'lz4' cannot be read"):
        decompress("lz4", b"", 0)
