"""Formats: each value gets one from which it comes back exactly, and everybody can add one."""

from __future__ import annotations

import dataclasses
import datetime
import fractions
import hashlib
import os
import re
import subprocess
import sys
import textwrap
import typing as tp
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from alike import UNUSUAL, exactly
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import pandas as hpd
from hypothesis_profiles import examples
from places import ROOT
from stored import as_item, as_result, store_value

import hydra_exca
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError
from hydra_exca.store import ItemWriter, pickles, values
from hydra_exca.store.formats import registry

stable = examples(100)
DOC = ROOT / "docs" / "formats.md"


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test registers, no other sees."""
    monkeypatch.setattr(registry, "_registered", [])


def format_of(value: tp.Any, forced: str | None = None) -> str:
    return registry.encode_value(value, "the result of item 'a'", registry.format_named(forced))[0].name


# -- by type


class Number(int):
    """A subclass of what JSON knows."""


BY_TYPE: dict[str, tuple[tp.Any, str]] = {
    "an array": (np.zeros(3), "array"),
    "an array without dimensions": (np.array(3), "array"),
    "an array of times": (np.array(["2020"], "M8[D]"), "array"),
    "an array of objects": (np.array([None]), "pickle"),
    "an array of records": (np.zeros(2, [("a", "i4")]), "pickle"),
    "a masked array": (np.ma.masked_equal([1, 2], 2), "pickle"),
    "an array with metadata": (np.zeros(2, np.dtype("f4", metadata={"unit": "m"})), "pickle"),
    "a wide number of numpy": (np.longdouble(1), "pickle"),
    "a frame": (pd.DataFrame({"a": [1]}), "parquet"),
    "a series": (pd.Series([1]), "pickle"),
    "text": ("text", "txt"),
    "no text": ("", "txt"),
    "half a character": ("half \ud83d", "pickle"),
    "None": (None, "json"),
    "a bool": (True, "json"),
    "a float": (2.5, "json"),
    "a dict": ({"a": [1, {"b": "c"}]}, "json"),
    "an int of 5000 digits": (10**5000, "pickle"),
    "a subclass of int": (Number(3), "pickle"),
    "a tuple": ((1, 2), "pickle"),
    "a dict by numbers": ({1: 2}, "pickle"),
    "bytes": (b"bytes", "pickle"),
}


@pytest.mark.parametrize(("value", "name"), BY_TYPE.values(), ids=BY_TYPE.keys())
def test_a_type_has_a_format(value: tp.Any, name: str) -> None:
    assert format_of(value) == name


@pytest.mark.parametrize("value", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_an_unusual_item_comes_back_exactly(value: tp.Any) -> None:
    back = as_item(value)
    assert exactly(value, back) or repr(value) == repr(back)


@pytest.mark.parametrize(
    ("value", "suffix"), [(np.zeros(3), "npy"), ("x" * 5000, "txt"), (pd.DataFrame({"a": [1]}), "parquet")]
)
def test_a_value_of_a_task_is_in_a_file_of_its_format(tmp_path: Path, value: tp.Any, suffix: str) -> None:
    record = store_value(tmp_path, 3, value)
    assert record["format"] == suffix and (tmp_path / f"value.3.{suffix}").exists()


def test_short_text_of_a_task_is_in_the_marker(tmp_path: Path) -> None:
    assert store_value(tmp_path, 1, "text") == {"format": "json", "inline": "text"}


def test_a_frame_that_was_pickled_before_there_was_parquet_is_still_loaded(tmp_path: Path) -> None:
    record = store_value(tmp_path, 1, (1, 2))
    frame = pd.DataFrame({"a": [1]})
    data = pickles.pickle_value(frame, "it")
    (tmp_path / record["file"]).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    pd.testing.assert_frame_equal(
        values.load_value(tmp_path, {**record, "size": len(data), "sha256": digest}, ()), frame
    )


@pytest.mark.parametrize("lost", ["format", "file", "size", "sha256"])
def test_a_marker_that_does_not_say_all_of_a_value_is_corrupt(tmp_path: Path, lost: str) -> None:
    record = store_value(tmp_path, 1, (1, 2))
    del record[lost]
    with pytest.raises(CorruptEntryError, match="where its value is"):
        values.load_value(tmp_path, record, ())


def test_a_marker_that_names_another_format_than_its_file_is_corrupt(tmp_path: Path) -> None:
    record = store_value(tmp_path, 1, (1, 2))
    with pytest.raises(CorruptEntryError, match="where its value is"):
        values.load_value(tmp_path, {**record, "format": "json"}, ())


@pytest.mark.app
def test_libraries_that_the_program_does_not_use_are_not_imported(tmp_path: Path) -> None:
    program = """
    import sys
    from pathlib import Path
    from hydra_exca.store import Items, ItemWriter, values
    for number, value in enumerate(["a", {"a": 1}, (1,), b"a", "a" * 5000]):
        assert values.load_value(Path(), values.encode_value(number, value).write(Path()), ()) == value
        with ItemWriter(Path(), f"{number}-a") as writer:
            writer.add("key", value)
        assert Items(Path()).get("key") == value
    print({"numpy", "pandas", "pyarrow", "torch"} & set(sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr


# -- by name

ALIASES = {
    "array": ["NumpyArray", "MemmapArray", "MemmapArrayFile", "npy"],
    "torch": ["TorchTensor"],
    "parquet": ["PandasDataFrame", "ParquetPandasDataFrame"],
    "txt": ["String"],
    "json": ["Json"],
    "pickle": ["Pickle"],
}


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name in ALIASES for alias in (name, *ALIASES[name])])
def test_a_format_is_known_by_its_name_and_those_that_people_know(name: str, alias: str) -> None:
    assert registry.format_named(alias) == name


@pytest.mark.parametrize("name", ["Auto", None])
def test_a_type_decides_where_no_format_is_named(name: str | None) -> None:
    assert registry.format_named(name) is None


def test_an_unknown_name_is_an_error_that_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'NumpyArry'.*array, json, parquet, pickle, torch, txt"):
        ItemWriter(tmp_path, "1-a", format="NumpyArry")


def test_a_named_format_is_used(tmp_path: Path) -> None:
    assert format_of({"a": 1}, "Pickle") == "pickle" and format_of("text", "Json") == "json"


MISFITS: list[tuple[tp.Any, str, str]] = [
    ([1.0], "NumpyArray", "list"),
    (np.array([None]), "NumpyArray", "numpy.ndarray"),
    ((1, 2), "Json", "tuple"),
    ("half \ud83d", "String", "str"),
    (3, "String", "int"),
    (np.zeros(3), "TorchTensor", "numpy.ndarray"),
    (pd.Series([1]), "PandasDataFrame", "pandas.*Series"),
    (pd.DataFrame({"a": [[1]]}), "PandasDataFrame", "pandas.*DataFrame.*its column 'a'"),
    (pd.DataFrame({"a": [1 + 2j]}), "PandasDataFrame", "pandas.*DataFrame.*complex"),
]


@pytest.mark.parametrize(
    ("value", "name", "said"), MISFITS, ids=[f"{value!r:.12} as {name}" for value, name, _ in MISFITS]
)
def test_a_value_that_a_named_format_cannot_hold_is_an_error_that_names_all_three(
    tmp_path: Path, value: tp.Any, name: str, said: str
) -> None:
    with (
        pytest.raises(ConfigError, match=f"(?s)item 'k'.*{said}") as caught,
        ItemWriter(tmp_path, "1-a", format=name) as writer,
    ):
        writer.add("k", value)
    assert repr(registry.format_named(name)) in str(caught.value)


# -- one more


def dump_fraction(value: fractions.Fraction) -> bytes:
    return f"{value.numerator}/{value.denominator}".encode()


def load_fraction(data: bytes) -> fractions.Fraction:
    return fractions.Fraction(data.decode())


def register(name: str = "fraction", **changes: tp.Any) -> None:
    arguments = {"kind": fractions.Fraction, "dump": dump_fraction, "load": load_fraction, **changes}
    registry.register_format(name, **arguments)


def test_the_example_of_the_docs_runs() -> None:
    example = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert example is not None
    exec(example.group(1), {"__name__": "example"})
    value = fractions.Fraction(1, 3)
    assert format_of(value) == "fraction" and exactly(as_result(value), value) and exactly(as_item(value), value)


@pytest.mark.parametrize("name", [name for names in ALIASES.values() for name in names] + list(ALIASES))
def test_the_docs_know_all_names(name: str) -> None:
    assert f"`{name}`" in DOC.read_text()


def test_it_is_registered_through_the_package() -> None:
    assert hydra_exca.register_format is registry.register_format


def test_a_registered_format_takes_subclasses() -> None:
    class Ratio(fractions.Fraction):
        pass

    register()
    assert format_of(Ratio(1, 3)) == "fraction"


def test_of_two_formats_the_last_registered_takes_the_value() -> None:
    register("first")
    register("second")
    assert format_of(fractions.Fraction(1, 3)) == "second" and format_of(fractions.Fraction(1, 3), "first") == "first"


def test_a_registered_format_comes_before_the_built_in_ones(tmp_path: Path) -> None:
    register("shout", kind=str, dump=lambda value: value.upper().encode(), load=bytes.decode)
    assert store_value(tmp_path, 1, "text")["format"] == "shout"


def test_a_registered_format_takes_no_other_values_when_it_is_named() -> None:
    register()
    with pytest.raises(ConfigError, match=r"float.*'fraction'"):
        format_of(0.5, "fraction")


@pytest.mark.parametrize("name", ["json", "array", "npy", "NumpyArray", "Pickle", "Auto", "index"])
def test_a_built_in_name_is_not_to_be_had(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}'.*is taken"):
        register(name)


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "../a", "1a", "a-b", "a" * 40])
def test_a_name_that_is_no_suffix_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="names files"):
        register(name)


@pytest.mark.parametrize("changes", [{"kind": "Fraction"}, {"dump": None}, {"load": b""}])
def test_what_is_no_format_is_refused(changes: dict[str, tp.Any]) -> None:
    with pytest.raises(ConfigError, match="needs a class"):
        register(**changes)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def to_bytes(self) -> bytes:
        return b"%d" % self.x

    @classmethod
    def from_bytes(cls, data: bytes) -> Point:
        return cls(int(data))


def test_the_same_is_registered_again_without_an_error() -> None:
    def at_import() -> None:
        register()
        register("lambdas", dump=lambda value: b"", load=lambda data: None)
        registry.register_format("point", Point, Point.to_bytes, Point.from_bytes)

    at_import()
    at_import()
    assert exactly(as_item(Point(3)).x, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"dump": bytes},
        {"load": lambda data: None},
        {"kind": int},
        {"runs_code": True},
        {"load": Point.from_bytes},
    ],
)
def test_the_name_of_another_format_is_refused(changes: dict[str, tp.Any]) -> None:
    register()
    with pytest.raises(ConfigError, match=r"'fraction' is registered already, for fractions.Fraction"):
        register(**changes)


@pytest.mark.app
def test_a_script_that_registers_a_format_can_be_loaded_by_its_own_process(tmp_path: Path) -> None:
    """The classes of the first ``__main__`` and of the one that jobs load get the format."""
    program = """
    import hydra_exca
    from hydra_exca import script
    class Thing: ...
    def dump(value): return b"thing"
    def load(data): return Thing()
    hydra_exca.register_format("thing", Thing, dump, load)
    if __name__ == "__main__":
        from hydra_exca.store.formats import registry
        mine = Thing()
        script.load_script(script.Script(__file__))
        print([registry.encode_value(each, "it", forced)[0].name
               for each in (mine, __import__("__main__").Thing()) for forced in (None, "thing")])
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "['thing', 'thing', 'thing', 'thing']\n", done.stderr


def _fails(value: tp.Any) -> tp.Any:
    raise ZeroDivisionError("for a reason")


@pytest.mark.parametrize(
    ("dump", "said"), [(_fails, "ZeroDivisionError: for a reason"), (lambda value: "text", "returned str, not bytes")]
)
def test_a_format_that_fails_to_write_is_an_error_that_says_why(dump: tp.Any, said: str) -> None:
    register(dump=dump)
    with pytest.raises(ConfigError, match=f"item 'a'.*fractions.Fraction.*'fraction'.*{said}"):
        format_of(fractions.Fraction(1, 3))


def test_a_format_that_fails_to_read_says_that_the_file_is_intact(tmp_path: Path) -> None:
    register(load=_fails)
    record = store_value(tmp_path, 1, fractions.Fraction(1, 3))
    with pytest.raises(CacheError, match=f"{record['file']} is intact.*ZeroDivisionError"):
        values.load_value(tmp_path, record, ())


def test_a_value_in_a_format_that_is_not_registered_says_what_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    record = store_value(tmp_path, 1, fractions.Fraction(1, 3))
    monkeypatch.setattr(registry, "_registered", [])
    with pytest.raises(CacheError, match=r"'fraction'.*not registered.*import the module.*register_format\('fraction'"):
        values.load_value(tmp_path, record, ())


@pytest.mark.parametrize("runs_code", [False, True])
def test_only_a_format_that_runs_code_asks_whom_to_trust(tmp_path: Path, runs_code: bool) -> None:
    register(runs_code=runs_code)
    record = store_value(tmp_path, 1, fractions.Fraction(1, 3))
    os.chmod(tmp_path / record["file"], 0o666)
    try:
        refused = values.load_value(tmp_path, record, ()) is None
    except CacheError:
        refused = True
    assert refused == runs_code


class Strict(type):
    """Makes classes that cannot say what is an instance of them."""

    def __instancecheck__(cls, value: tp.Any) -> bool:
        raise TypeError("isinstance() is not for protocols")


class Protocol(metaclass=Strict):
    """A class of values that a format was registered for."""


@pytest.mark.parametrize("store", [as_result, as_item])
def test_a_format_whose_test_of_a_value_raises_is_passed_over_with_a_warning(
    store: tp.Callable[[tp.Any], tp.Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = dataclasses.replace(registry.ARRAY, name="broken", fits=_fails)
    monkeypatch.setattr(registry, "_BUILTIN", (broken, *registry._BUILTIN))
    assert store("computed") == "computed"
    assert "'broken'" in caplog.text and "ZeroDivisionError: for a reason" in caplog.text


def test_a_registered_format_whose_class_cannot_be_asked_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    register(kind=Protocol)
    assert format_of(fractions.Fraction(1, 3)) == "pickle"
    assert "TypeError: isinstance() is not for protocols" in caplog.text


def test_a_named_format_whose_test_of_a_value_raises_is_an_error_that_names_it() -> None:
    register(kind=Protocol)
    with pytest.raises(ConfigError, match="'fraction'"):
        format_of(fractions.Fraction(1, 3), "fraction")


# -- DataFrames


def with_attrs(frame: pd.DataFrame, attrs: tp.Any) -> pd.DataFrame:
    frame.attrs = attrs
    return frame


def grouped() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2, 1], "b": ["x", "y", "y"], "c": [1.0, 2.0, 3.0]}).groupby(["a", "b"]).mean()


TWO = {"a": [1, 2]}
TIMES = pd.to_datetime(["2020-01-01", "NaT"])
KEPT: dict[str, pd.DataFrame] = {
    "numbers": pd.DataFrame({"i": [1, 2], "u": np.array([1, 2], "u1"), "f": [-0.0, np.nan], "b": [True, False]}),
    "text": pd.DataFrame({"a": ["x", "ä", None]}),
    "times": pd.DataFrame({"a": TIMES, "b": TIMES.tz_localize("Europe/Paris"), "c": pd.to_timedelta(["1s", "NaT"])}),
    "categories": pd.DataFrame({"a": pd.Categorical(["x", None], categories=["y", "x"], ordered=True)}),
    "masked": pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
    "bytes": pd.DataFrame({"a": [b"x", None]}),
    "text as index": pd.DataFrame(TWO, index=["x", "y"]),
    "a range as index": pd.DataFrame(TWO, index=pd.RangeIndex(4, 8, 2, name="r")),
    "times as index": pd.DataFrame(TWO, index=pd.DatetimeIndex(["2020-01-01", "2020-01-05"])),
    "several indexes": grouped(),
    "named columns": pd.DataFrame(TWO).rename_axis(columns="name"),
    "attrs": with_attrs(pd.DataFrame(TWO), {"unit": {"a": ["m", 1]}}),
    "no rows": pd.DataFrame({"a": np.array([], "f4")}),
}
CHANGED: dict[str, pd.DataFrame] = {
    "lists": pd.DataFrame({"a": [[1], [2]]}),
    "dates": pd.DataFrame({"a": [datetime.date(2020, 1, 1)]}),
    "seconds": pd.DataFrame({"a": np.array(["2020-01-01"], "M8[s]")}),
    "complex numbers": pd.DataFrame({"a": [1j]}),
    "periods": pd.DataFrame({"a": pd.period_range("2020", periods=2)}),
    "numbers as categories": pd.DataFrame({"a": pd.Categorical([3, 1], categories=[3, 1])}),
    "an index with a frequency": pd.DataFrame(TWO, index=pd.date_range("2020", periods=2)),
    "an index with unused levels": grouped().iloc[:1],
    "numbers and text as columns": pd.DataFrame({0: [1], "a": [2]}),
    "two columns of one name": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "a tuple in attrs": with_attrs(pd.DataFrame(TWO), {"unit": ("m",)}),
    "flags": pd.DataFrame(TWO).set_flags(allows_duplicate_labels=False),
}


def assert_same_frame(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True, check_index_type=True, check_column_type=True)
    assert exactly(one.attrs, other.attrs)


@pytest.mark.parametrize("frame", KEPT.values(), ids=KEPT.keys())
def test_a_frame_that_parquet_keeps_is_parquet(frame: pd.DataFrame) -> None:
    assert format_of(frame) == "parquet"


@pytest.mark.parametrize("frame", CHANGED.values(), ids=CHANGED.keys())
def test_a_frame_that_parquet_would_change_is_pickled(frame: pd.DataFrame) -> None:
    assert format_of(frame) == "pickle"


OTHERS = {"numbers as columns": pd.DataFrame({0: [1], 1: [2]}), "UTC": pd.DataFrame({"a": TIMES.tz_localize("UTC")})}
ALL = {**KEPT, **CHANGED, **OTHERS}  # what becomes of the others depends on the version of pandas


@pytest.mark.parametrize("frame", ALL.values(), ids=ALL.keys())
def test_a_frame_comes_back_exactly(frame: pd.DataFrame) -> None:
    assert_same_frame(as_item(frame), frame)


CELLS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=2) | st.binary(max_size=2)
COLUMNS = [
    hpd.column("i", dtype=np.int64),
    hpd.column("f", dtype=np.float32),
    hpd.column("t", dtype="M8[ns]"),
    hpd.column("o", elements=CELLS, dtype=object),
]
INDEXES = hpd.range_indexes(max_size=4) | hpd.indexes(elements=st.text(max_size=2), max_size=4)


@stable
@given(
    st.lists(st.sampled_from(COLUMNS), unique_by=lambda column: column.name).flatmap(
        lambda some: hpd.data_frames(some, index=INDEXES)
    )
)
def test_any_frame_comes_back_exactly(frame: pd.DataFrame) -> None:
    back = as_item(frame)
    assert_same_frame(back, frame)
    assert all(exactly([*back[name]], [*frame[name]]) for name in frame.columns if name == "o")
