"""S-13: what is stored names a serializer or a codec of a fixed list, and nothing else is found."""

import pickle
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import StoreError, UnreadableValueError
from engine.stores.artifacts import load_entry, save_values
from engine.stores.codecs import decompress
from engine.stores.directory import BlobDirectory
from engine.stores.layout import create_layout
from engine.stores.serializers import deserialize

NAMES = (
    *("os.system", "builtins.eval", "subprocess:Popen", "pickle.loads", "cloudpickle", "marshal"),
    *("dill", "joblib", "yaml", "PICKLE", "pickle ", "json\0", "", "__reduce__", "../pickle"),
    *("engine.stores.pickling.load_pickle", "Entry", "packed "),
)


@pytest.fixture
def directory(tmp_path: Path) -> BlobDirectory:
    return create_layout(tmp_path / "store").blob_directory()


@pytest.mark.parametrize("name", NAMES)
def test_s13_a_serializer_that_is_not_listed_is_refused(
    directory: BlobDirectory, name: str
) -> None:
    entry = save_values({"x": {"a": 1}}, directory, step="s")["x"]
    before = set(sys.modules)
    with pytest.raises(StoreError, match="cannot be read by this aflow"):
        load_entry(replace(entry, serializer=name), directory)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["gzip", "zlib", "lzma", "os.system", "ZSTD", "zstd\0"])
def test_s13_a_codec_that_is_not_listed_is_refused(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(StoreError, match="cannot be read by this aflow"):
        decompress(name, b"x", 1)
    assert set(sys.modules) == before


def test_s13_the_type_of_a_value_is_told_and_never_imported(directory: BlobDirectory) -> None:
    entry = save_values({"x": [1, 2]}, directory, step="s")["x"]
    assert load_entry(replace(entry, type="antigravity.Module"), directory) == [1, 2]
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("dtype", ["O", "|O", "object", "V8", "M8[generic],O", "(2,)O", "no"])
def test_s13_an_array_holds_numbers_and_text_only(dtype: str) -> None:
    meta = {"dtype": dtype, "shape": [1], "order": "C"}
    with pytest.raises(UnreadableValueError):
        deserialize("numpy", memoryview(bytearray(8)), meta)


def test_s13_a_pickle_under_another_name_is_not_loaded_as_one() -> None:
    data = memoryview(bytearray(pickle.dumps(print)))
    for name in ("json", "arrow", "numpy"):
        with pytest.raises(UnreadableValueError):
            deserialize(name, data, {"dtype": "f8", "shape": [9], "order": "C"})
    assert deserialize("bytes", data, {}) == bytes(data)
    with pytest.raises(StoreError, match="can run code"):
        deserialize("pickle", data, {}, allow_pickle=False)
