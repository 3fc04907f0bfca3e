"""S-09: what is too large is refused, with its own error, before it costs anything."""

from pathlib import Path

import msgpack
import pytest
import zstandard

from engine.errors import (
    JournalDamagedError,
    ParameterError,
    StoreError,
    UnreadableValueError,
    UnsafeNameError,
    UsageError,
)
from engine.flow.parameters import JSON_DEPTH_MAX, VALUE_MAX_BYTES, JSONType, Parameter
from engine.ids import safe_name
from engine.stores.codecs import RATIO_MAX, compress, decompress
from engine.stores.frames import FRAME_MAX_BYTES, FrameReader, pack_frame
from engine.stores.manifest import Manifest
from engine.stores.metadata.tags import TAG_MAX_BYTES, TAGS_MAX, merged_tags
from engine.stores.serializers import deserialize
from tests.cli.conftest import Call, aflow  # noqa: F401  # a fixture


def nested(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


def test_s09_a_name_has_at_most_128_bytes() -> None:
    assert safe_name("a" * 128, what="run")
    with pytest.raises(UnsafeNameError, match="is not a safe name"):
        safe_name("a" * 129, what="run")


def test_s09_a_parameter_has_at_most_1_mib() -> None:
    text, values = Parameter("text"), Parameter("values", type=JSONType)
    assert VALUE_MAX_BYTES == 1 << 20
    assert text.convert("x" * VALUE_MAX_BYTES)
    for parameter, value in (
        (text, "x" * (VALUE_MAX_BYTES + 1)),
        (text, "\u00e9" * (VALUE_MAX_BYTES // 2 + 1)),
        (values, "[" + "1," * (VALUE_MAX_BYTES // 2) + "1]"),
        (values, ["x" * VALUE_MAX_BYTES]),
    ):
        with pytest.raises(ParameterError, match="is longer than 1,048,576 bytes"):
            parameter.convert(value)


@pytest.mark.parametrize("as_text", [True, False])
def test_s09_json_has_at_most_64_levels(as_text: bool) -> None:
    parameter = Parameter("values", type=JSONType)
    for levels in (0, 1, JSON_DEPTH_MAX):
        value = nested(levels)
        assert parameter.convert(value if as_text or not levels else eval_json(value)) is not None
    for levels in (JSON_DEPTH_MAX + 1, 500, 100_000):
        value = nested(levels)
        if not as_text and levels > 500:
            continue
        with pytest.raises(ParameterError, match=r"levels deep|must be JSON"):
            parameter.convert(value if as_text else eval_json(value))


def eval_json(text: str) -> object:
    value: object = 1
    for _ in range(text.count("[")):
        value = [value]
    return value


def test_s09_a_map_counts_as_a_level() -> None:
    text = '{"a":' * 65 + "1" + "}" * 65
    with pytest.raises(ParameterError, match="more than 64 levels"):
        Parameter("values", type=JSONType).convert(text)


def test_s09_stored_json_that_is_too_deep_is_an_error_of_the_store() -> None:
    with pytest.raises(UnreadableValueError):
        deserialize("json", memoryview(bytearray(nested(100_000).encode())), {})


def test_s09_a_tag_has_at_most_256_bytes_and_a_run_100_tags() -> None:
    assert merged_tags((), ["x" * TAG_MAX_BYTES], ())
    hundred = [str(n) for n in range(TAGS_MAX)]
    assert len(merged_tags((), hundred, ())) == 100
    for tag in ("x" * (TAG_MAX_BYTES + 1), "\u00e9" * 129, "", "a\nb", "\x1b[2J"):
        with pytest.raises(UsageError, match="cannot be a tag"):
            merged_tags((), [tag], ())
    with pytest.raises(UsageError, match="100 tags, not 101"):
        merged_tags(hundred, ["more"], ())


def test_s09_a_blob_swells_to_at_most_200_bytes_for_each_of_its_own() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(50 << 20))
    assert len(bomb) * RATIO_MAX < 50 << 20
    with pytest.raises(StoreError, match="200 per byte are allowed"):
        decompress("zstd", bomb, 50 << 20)
    assert compress([bytes(1 << 20)], 1 << 20) is None, "what would be refused is not written"


def test_s09_a_length_that_damage_made_up_reserves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is more than 268,435,456"):
        pack_frame(bytes(FRAME_MAX_BYTES + 1))
    path = tmp_path / "journal"
    path.write_bytes(b"AFJ1" + b"\xff\xff\xff\x0f" + bytes(100) + pack_frame(b"x"))
    with FrameReader(str(path), b"AFJ1") as reader, pytest.raises(JournalDamagedError):
        list(reader.scan())


def test_s09_a_manifest_that_is_nested_without_end_is_damage() -> None:
    wire = b"\x91" * 100_000 + b"\x01"
    with pytest.raises(StoreError, match="damaged"):
        Manifest.unpack(wire)
    with pytest.raises(StoreError, match="damaged"):
        Manifest.unpack(msgpack.packb({"v": 1, "artifacts": {"x": 3}}))


FLOW = """
from engine import FlowSpec, step


class Wide(FlowSpec):
    @step
    def start(self):
        self.items = range(11)
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


def test_s09_a_foreach_is_as_wide_as_it_may_be(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
) -> None:
    Path("wide.py").write_text(FLOW)
    refused = aflow("run", "wide.py", "--max-num-splits", "10")
    assert refused.code == 7
    assert "hint: --max-num-splits N lets it through" in refused.err
    assert "the foreach of start has 11 items; at most 10 may be" in refused.err
    assert aflow("run", "wide.py", "--max-num-splits", "11").code == 0
