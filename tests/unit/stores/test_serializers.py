"""A value comes back as it was: equal, of the same type, and sharing what it shared."""

import enum
import math
import subprocess
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import StoreError, UnreadableValueError
from engine.stores.serializers import PLAIN_NODES_MAX, Serialized, deserialize, serialize

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


@dataclass
class Model:
    weights: Any
    name: str = "m"


def dumped(value: object) -> Serialized:
    return serialize(value, artifact="x", step="s")


def private(done: Serialized) -> memoryview:
    data = bytearray(b"".join(done.parts))
    assert len(data) == done.size_bytes
    return memoryview(data)


def round_trip(value: object) -> Any:
    done = dumped(value)
    return deserialize(done.serializer, private(done), done.meta)


def same(a: object, b: object) -> bool:
    """Equal in value and in every type, all the way down; NaN is NaN, and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (
            a == b and math.copysign(1, a) == math.copysign(1, b)
        )
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(
            same(ka, kb) and same(va, vb)
            for (ka, va), (kb, vb) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=50)
    | st.complex_numbers(allow_nan=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=5)
        | st.sets(st.integers(), max_size=5)
    ),
    max_leaves=20,
)


@given(values)
def test_plain_values_come_back_the_same(value: object) -> None:
    assert same(round_trip(value), value)


@given(st.text(st.characters(categories=["Cs", "Lu"])))
def test_text_that_is_no_unicode_comes_back(value: str) -> None:
    assert same(round_trip([value]), [value])


@pytest.mark.parametrize(
    ("value", "serializer"),
    [
        (None, "json"),
        (True, "json"),
        (-5, "json"),
        (2**4000, "json"),
        (2**5000, "pickle"),
        (1.5, "json"),
        (-0.0, "json"),
        (math.nan, "pickle"),
        (math.inf, "pickle"),
        ("ünï", "json"),
        ("\ud800", "pickle"),
        ([1, {"a": [None, "x"]}], "json"),
        ({"a": 1}, "json"),
        ({1: "int key"}, "pickle"),
        ({"a": (1, 2)}, "pickle"),
        ((1, 2), "pickle"),
        ({1, 2}, "pickle"),
        (Colour.RED, "pickle"),
        ([Colour.RED], "pickle"),
        (Text("x"), "pickle"),
        ({Text("x"): 1}, "pickle"),
        (OrderedDict(a=1), "pickle"),
        (Point(1, 2), "pickle"),
        (Decimal("1.10"), "pickle"),
        (datetime(2026, 1, 1, tzinfo=UTC), "pickle"),
        (b"raw", "bytes"),
        (bytearray(b"raw"), "pickle"),
        (list(range(PLAIN_NODES_MAX)), "json"),
        (list(range(PLAIN_NODES_MAX + 1)), "pickle"),
        ([math.nan], "pickle"),
        ([b"x"], "pickle"),
    ],
)
def test_json_is_used_only_where_it_changes_nothing(value: object, serializer: str) -> None:
    assert dumped(value).serializer == serializer
    assert same(round_trip(value), value)


def test_a_list_that_appears_twice_is_one_list_again() -> None:
    inner: list[int] = [1]
    back = round_trip({"a": inner, "b": inner})
    back["a"].append(2)
    assert back["b"] == [1, 2]


def test_a_value_that_holds_itself_comes_back() -> None:
    value: list[Any] = [1]
    value.append(value)
    back = round_trip(value)
    assert back[1] is back


def test_json_beyond_its_depth_goes_through_pickle() -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    assert dumped(value).serializer == "pickle"
    assert round_trip(value) == value


# -- numpy ----------------------------------------------------------------------------------------

arrays = hnp.arrays(
    dtype=hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes(),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@given(arrays, st.sampled_from(["as it is", "transposed", "reversed", "stepped", "fortran"]))
def test_arrays_come_back_the_same_and_writable(array: np.ndarray, form: str) -> None:
    if form == "transposed":
        array = array.T
    elif form == "fortran":
        array = np.asfortranarray(array)
    elif array.ndim and form == "reversed":
        array = array[::-1]
    elif array.ndim and form == "stepped":
        array = array[::2]
    done = dumped(array)
    assert done.serializer == "numpy"
    back = deserialize("numpy", private(done), done.meta)
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    if array.flags.f_contiguous:
        assert back.flags.f_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
        np.array([1], dtype=np.dtype("i4", metadata={"unit": "m"})),
        np.array(["a", "bc"], dtype=np.dtypes.StringDType()),
        np.void(b"abc"),
        np.array([b"ab"], dtype="V2"),
        np.float64(1.5),
        np.datetime64("2020-01-01"),
    ],
    ids=lambda a: f"{type(a).__name__}-{getattr(a, 'dtype', '')}",
)
def test_what_is_more_than_raw_elements_is_pickled(array: Any) -> None:
    done = dumped(array)
    assert done.serializer == "pickle"
    back = deserialize("pickle", private(done), done.meta)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()


def test_a_large_array_is_handed_on_without_copying() -> None:
    for array in (np.arange(1e6), np.asfortranarray(np.ones((1000, 1000)))):
        (part,) = dumped(array).parts
        assert np.shares_memory(np.frombuffer(part, "u1"), array)


def test_a_loaded_array_is_a_view_of_its_bytes() -> None:
    done = dumped(np.arange(1e6))
    view = private(done)
    assert np.shares_memory(deserialize("numpy", view, done.meta), np.frombuffer(view, "u1"))


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"dtype": "O", "shape": [2], "order": "C"},
        {"dtype": "|O", "shape": [2], "order": "C"},
        {"dtype": "nonsense", "shape": [2], "order": "C"},
        {"dtype": "<i8", "shape": [3], "order": "C"},
        {"dtype": "<i8", "shape": [1], "order": "C"},
        {"dtype": "<i8", "shape": [-2], "order": "C"},
        {"dtype": "<i8", "shape": ["x"], "order": "C"},
        {"dtype": "<i8", "shape": None, "order": "C"},
        {"dtype": "V16", "shape": [1], "order": "C"},
        {"dtype": "i8,O", "shape": [1], "order": "C"},
    ],
)
def test_a_description_that_does_not_fit_the_bytes_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(UnreadableValueError):
        deserialize("numpy", memoryview(bytearray(16)), meta)


# -- arrow and pandas -----------------------------------------------------------------------------

TABLES = [
    pa.table({"a": [1, None, 3], "b": ["x", "y", None]}),
    pa.table({"a": pa.array([], pa.int32())}),
    pa.table({"c": pa.array(["x", "y", "x"]).dictionary_encode(), "d": [[1], [], None]}),
    pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2, 3]})]),
    pa.table({"a": [1]}).replace_schema_metadata({"key": "value"}),
    pa.record_batch({"a": [1.5, 2.5]}),
    pa.record_batch({"a": pa.array([], pa.string())}),
]


@pytest.mark.parametrize("table", TABLES)
def test_arrow_tables_come_back_the_same(table: Any) -> None:
    done = dumped(table)
    assert done.serializer == "arrow"
    back = deserialize("arrow", private(done), done.meta)
    assert type(back) is type(table)
    assert back.equals(table, check_metadata=True)


def test_an_arrow_table_is_neither_copied_nor_parsed() -> None:
    table = pa.table({"a": np.arange(1e6)})
    done = dumped(table)
    data = table["a"].chunk(0).buffers()[1]
    assert data.address in {pa.py_buffer(part).address for part in done.parts}
    view = private(done)
    back: Any = deserialize("arrow", view, done.meta)
    start = pa.py_buffer(view).address
    assert start < back["a"].chunk(0).buffers()[1].address < start + len(view)


def test_damaged_arrow_bytes_are_refused() -> None:
    with pytest.raises(UnreadableValueError):
        deserialize("arrow", memoryview(bytearray(b"no arrow at all")), {"kind": "Table"})
    with pytest.raises(UnreadableValueError):
        deserialize("arrow", memoryview(bytearray()), {"kind": "RecordBatch"})


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": np.arange(5000.0), "y": np.arange(5000)}),
        pd.DataFrame({"s": ["a", "b", None] * 2000, "c": pd.Categorical(["u", "v", "u"] * 2000)}),
        pd.DataFrame({"t": pd.date_range("2020", periods=3000, tz="UTC")}),
        pd.DataFrame(),
        pd.DataFrame({"x": [1]}, index=pd.MultiIndex.from_tuples([("a", 1)])),
    ],
)
def test_data_frames_come_back_equal_and_writable(frame: pd.DataFrame) -> None:
    back = round_trip(frame)
    pd.testing.assert_frame_equal(back, frame)
    if "x" in frame:
        back.iloc[0, 0] = 7
        back["x"].to_numpy(copy=False)
        assert back.iloc[0, 0] == 7


# -- pickle ---------------------------------------------------------------------------------------


def test_large_buffers_lie_beside_the_pickle_and_are_not_copied() -> None:
    weights = np.arange(100_000.0)
    model = Model({"w": weights, "b": np.arange(3), "again": weights})
    done = dumped(model)
    assert done.serializer == "pickle"
    assert done.meta == {"buffers": 1}
    assert any(np.shares_memory(np.frombuffer(p, "u1"), weights) for p in done.parts if len(p) > 64)
    view = private(done)
    back: Any = deserialize("pickle", view, done.meta)
    assert np.shares_memory(back.weights["w"], np.frombuffer(view, "u1"))
    assert back.weights["w"] is back.weights["again"]
    back.weights["w"][0] = 5
    assert back.weights["w"].ctypes.data % 16 == 0


def test_buffers_begin_at_multiples_of_64_bytes() -> None:
    done = dumped([np.arange(n, dtype="u1") for n in (5000, 4096, 9999)])
    offsets, at = [], 0
    for part in done.parts:
        if isinstance(part, memoryview):
            offsets.append(at % 64)
        at += memoryview(part).nbytes
    assert offsets == [0, 0, 0]


def test_a_read_only_array_comes_back_read_only_through_pickle() -> None:
    array = np.arange(10_000.0)
    array.flags.writeable = False
    assert not round_trip([array])[0].flags.writeable


@pytest.mark.parametrize("cut", [0, 10, 20, 30])
def test_a_damaged_head_is_refused(cut: int) -> None:
    done = dumped([np.arange(10_000)])
    view = private(done)
    with pytest.raises(UnreadableValueError):
        deserialize("pickle", view[:cut], done.meta)
    view[:4] = b"nope"
    with pytest.raises(UnreadableValueError):
        deserialize("pickle", view, done.meta)


def test_a_class_that_is_gone_is_named_with_a_hint() -> None:
    data = bytearray(b"\x80\x04\x8c\x08gonemod1\x8c\x05Thing\x93.")
    with pytest.raises(UnreadableValueError, match="gonemod1") as caught:
        deserialize("pickle", memoryview(data), {})
    assert caught.value.hint is not None
    assert "PYTHONPATH" in caught.value.hint


def test_lambdas_and_local_classes_are_stored_by_value() -> None:
    factor = 3

    class Local:
        def double(self) -> int:
            return 2

    back = round_trip({"f": lambda x: x * factor, "o": Local()})
    assert back["f"](2) == 6
    assert back["o"].double() == 2


FLOW_FILE = """
import pickle, sys
from engine.stores.serializers import serialize, deserialize

class Thing:
    def __init__(self, n): self.n = n
    def twice(self): return Thing(self.n * 2)

def helper(x): return x + 1

if __name__ == "__main__":
    done = serialize({"t": Thing(4), "f": helper}, artifact="x", step="s")
    data = b"".join(done.parts)
    back = deserialize(done.serializer, memoryview(bytearray(data)), done.meta)
    assert isinstance(back["t"], Thing) and back["f"] is helper
    sys.stdout.buffer.write(data)
"""


def test_objects_of_the_flows_own_file_are_theirs_there_and_work_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "flow_file.py"
    path.write_text(FLOW_FILE)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    back: Any = deserialize("pickle", memoryview(bytearray(done.stdout)), {})
    assert back["t"].twice().n == 8
    assert back["f"](1) == 2


def test_a_class_whose_code_cannot_be_stored_still_works_in_its_own_program(
    tmp_path: Path,
) -> None:
    path = tmp_path / "flow_file.py"
    lock = "import threading\nLOCK = threading.Lock()\n"
    uses = "def twice(self): return LOCK and"
    path.write_text(lock + FLOW_FILE.replace("def twice(self): return", uses))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with pytest.raises(UnreadableValueError, match="only be loaded by that program"):
        deserialize("pickle", memoryview(bytearray(done.stdout)), {})


# -- what may be read -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Pickle", "pickle2", "os.system", "dill", "packed"])
def test_only_known_serializers_are_read(name: str) -> None:
    with pytest.raises(StoreError, match="cannot be read by this aflow"):
        deserialize(name, memoryview(bytearray(b"1")), {})


def test_a_pickle_is_not_loaded_where_pickles_are_not_allowed() -> None:
    done = dumped((1, 2))
    with pytest.raises(StoreError, match="can run code"):
        deserialize("pickle", private(done), done.meta, allow_pickle=False)
    assert deserialize("json", memoryview(bytearray(b"[1]")), {}, allow_pickle=False) == [1]
