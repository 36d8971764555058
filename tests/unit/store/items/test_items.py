"""Many values in few files: what was committed comes back exactly, whatever becomes of those who write."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import mmap
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import stat
import sys
import tempfile
import threading
import types
import typing as tp
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from alike import ARRAYS, KEYS, LEAVES, TEXT, exactly, nested
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis_profiles import examples

from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError
from hydra_exca.store import Items, ItemWriter
from hydra_exca.store.formats import registry
from hydra_exca.store.items import data_files

stable = examples(150)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
NOBODY = 65534
fork = multiprocessing.get_context("fork")


def write(folder: Path, values: tp.Mapping[str, tp.Any], writer: str = "1-a", **settings: tp.Any) -> None:
    with ItemWriter(folder, writer, **settings) as opened:
        for key, value in values.items():
            opened.add(key, value)


def read(folder: Path) -> dict[str, tp.Any]:
    """All items, as a process sees them that has not looked before."""
    items = Items(folder)
    return {key: items.get(key) for key in items}


def in_child(function: tp.Callable[[], tp.Any]) -> tp.Any:
    """What ``function`` returns in a forked process; its error as text."""
    here, there = fork.Pipe(False)

    def run() -> None:
        try:
            there.send(function())
        except Exception as error:  # noqa: BLE001  it is handed on
            there.send(f"{type(error).__name__}: {error}")

    child = fork.Process(target=run, daemon=True)
    child.start()
    assert here.poll(60)
    answer = here.recv()
    child.join(60)
    return answer


# -- values come back as they were


@stable
@given(st.dictionaries(TEXT, nested(LEAVES, KEYS) | ARRAYS, max_size=6))
@example({"\ud83d\ude00": 1, "\U0001f600": 2})  # two lone surrogates, which JSON takes for one character
def test_any_values_come_back_exactly_under_any_keys(values: dict[str, tp.Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), values)
        found = read(Path(folder))
    assert found.keys() == values.keys() and all(exactly(found[key], values[key]) for key in values)


@stable
@given(st.lists(ARRAYS, max_size=8))
def test_arrays_of_all_kinds_lie_side_by_side(arrays: list[np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), {str(number): array for number, array in enumerate(arrays)})
        found = read(Path(name))
        plain = [array for array in found.values() if array.dtype.kind in "biufc"]
    assert all(exactly(found[str(number)], array) for number, array in enumerate(arrays))
    assert all(array.flags.aligned for array in plain)


def test_a_large_item_comes_back_between_small_ones(tmp_path: Path) -> None:
    large = np.arange(400_000.0)
    values = {"a": np.zeros(1, "u1"), "b": large, "c": np.ones(3, "u1"), "d": "x" * 3_000_000, "e": "y"}
    write(tmp_path, values)
    assert all(map(exactly, read(tmp_path).values(), values.values()))


def test_an_array_is_a_view_of_the_mapped_file(tmp_path: Path) -> None:
    write(tmp_path, {"a": np.arange(3), "b": np.arange(4.0).reshape(2, 2)})
    assert all(isinstance(array.base, mmap.mmap) for array in read(tmp_path).values())


def test_all_arrays_of_a_file_share_its_map(tmp_path: Path) -> None:
    write(tmp_path, {"a": np.arange(3), "b": np.arange(4.0)})
    found = read(tmp_path)
    assert found["a"].base is found["b"].base


def test_an_array_that_was_read_cannot_be_changed(tmp_path: Path) -> None:
    write(tmp_path, {"a": np.zeros(3), "empty": np.zeros((2, 0))})
    assert [array.flags.writeable for array in read(tmp_path).values()] == [False, False]


def test_what_is_added_does_not_follow_its_array(tmp_path: Path) -> None:
    array = np.zeros(3)
    with ItemWriter(tmp_path, "1-a") as writer:
        writer.add("a", array)
        array[:] = 1
    assert read(tmp_path)["a"].tolist() == [0, 0, 0]


def test_many_small_arrays_take_little_more_than_their_bytes(tmp_path: Path) -> None:
    write(tmp_path, {f"{number:05}": np.full(32, number, "f4") for number in range(10_000)})
    index = (tmp_path / "1-a.index").stat().st_size
    assert (tmp_path / "1-a.array").stat().st_size == 10_000 * 128 and index < 10_000 * (5 + 60)


def test_a_named_format_is_that_of_all_items(tmp_path: Path) -> None:
    write(tmp_path, {"a": np.zeros(3), "b": "text"}, format="Pickle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-a.index", "1-a.pickle"]


def test_a_result_that_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"result of item 'k' cannot be pickled.*\[1\].*lock"):
        write(tmp_path, {"k": [1, threading.Lock()]})


def test_what_is_stored_in_a_format_that_is_not_registered_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", [])
    registry.register_format(
        "mine", set, lambda value: json.dumps([*value]).encode(), lambda data: set(json.loads(data))
    )
    write(tmp_path, {"k": {1, 2}})
    kept = read(tmp_path)
    registry._registered.clear()
    with pytest.raises(CacheError, match="item 'k'.*'mine', which is not registered"):
        Items(tmp_path).get("k")
    assert kept == {"k": {1, 2}}


# -- committing


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_not_committed_is_not_there(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a", clock=Clock()) as writer:
        writer.add("a", 1)
        assert "a" not in Items(tmp_path)


def test_what_is_committed_is_there_for_all_others(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a", clock=Clock()) as writer:
        writer.add("a", 1)
        writer.commit()
        assert read(tmp_path) == {"a": 1}


def test_adding_commits_when_the_interval_has_passed(tmp_path: Path) -> None:
    clock = Clock()
    with ItemWriter(tmp_path, "1-a", clock=clock, interval=0.25) as writer:
        seen = []
        for clock.now in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
            writer.add(f"{clock.now}", 1)
            seen.append(len(Items(tmp_path)))
    assert seen == [0, 0, 3, 3, 3, 6]


def test_leaving_by_an_error_commits_and_the_error_goes_on(tmp_path: Path) -> None:
    def fails() -> None:
        with ItemWriter(tmp_path, "1-a") as writer:
            writer.add("a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert read(tmp_path) == {"a": 1}


def test_what_is_lost_on_leaving_by_an_error_is_noted_on_it(tmp_path: Path) -> None:
    def fails() -> None:
        with ItemWriter(tmp_path, "1-a", allowed=lambda: False) as writer:
            writer.add("a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fails()
    assert ["taken over" in note for note in caught.value.__notes__] == [True]


def test_a_commit_that_fails_on_leaving_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="taken over"):
        write(tmp_path, {"a": 1}, allowed=lambda: False)


def test_a_writer_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with ItemWriter(tmp_path / "items", "1-a") as writer:
        writer.commit()
    assert not (tmp_path / "items").exists()


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not 3"):
        write(tmp_path, {3: "a"})  # type: ignore[dict-item]


def test_nothing_can_be_added_to_a_closed_writer(tmp_path: Path) -> None:
    writer = ItemWriter(tmp_path, "1-a")
    writer.add("a", 1)
    writer.close()
    with pytest.raises(CacheError, match=r"1-a\.index: it is closed"):
        writer.add("b", 1)
    assert not writer.is_open


def test_a_writer_can_be_closed_twice(tmp_path: Path) -> None:
    writer = ItemWriter(tmp_path, "1-a")
    writer.add("a", 1)
    writer.close()
    writer.close()
    assert read(tmp_path) == {"a": 1}


def test_there_is_never_a_second_writer_of_a_name(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1})
    with pytest.raises(CacheError, match=r"1-a\.index exists"):
        ItemWriter(tmp_path, "1-a")


def test_of_two_writers_of_a_name_at_once_one_writes(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a") as first, ItemWriter(tmp_path, "1-a") as second:
        first.add("a", 1)
        with pytest.raises(CacheError, match=r"1-a\.index exists"):
            second.add("a", 2)
    assert read(tmp_path) == {"a": 1}


def test_a_writer_that_is_not_allowed_any_more_appends_nothing(tmp_path: Path) -> None:
    allowed = [True]
    writer = ItemWriter(tmp_path, "1-a", allowed=lambda: allowed[0])
    writer.add("a", 1)
    writer.commit()
    allowed[0] = False
    writer.add("b", 1)
    with pytest.raises(CacheError, match="another process has taken over"):
        writer.commit()
    assert read(tmp_path) == {"a": 1}


def test_a_writer_that_was_not_allowed_once_never_appends_again(tmp_path: Path) -> None:
    answers = iter([False, True, True])
    with ItemWriter(tmp_path, "1-a", allowed=lambda: next(answers)) as writer:
        writer.add("a", 1)
        with pytest.raises(CacheError):
            writer.commit()
        with pytest.raises(CacheError, match="taken over"):
            writer.add("b", 1)
    assert read(tmp_path) == {}


def test_threads_share_a_writer(tmp_path: Path) -> None:
    def add(thread: int) -> None:
        for number in range(200):
            writer.add(f"{thread}.{number}", np.full(thread, number))

    with ItemWriter(tmp_path, "1-a", interval=0.001) as writer:
        threads = [threading.Thread(target=add, args=(thread,)) for thread in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    found = read(tmp_path)
    assert len(found) == 1600
    assert all(exactly(array, np.full(int(key[0]), int(key[2:]))) for key, array in found.items())


@pytest.mark.app
def test_a_forked_process_neither_adds_nor_commits_for_its_parent(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a") as writer:
        writer.add("a", 1)

        def child() -> tuple[bool, int]:
            writer.commit()
            writer.close()
            return writer.is_open, len(Items(tmp_path))

        assert in_child(child) == (False, 0)
        assert "this process is a fork" in in_child(lambda: writer.add("b", 1))
    assert read(tmp_path) == {"a": 1}


def test_only_their_owner_can_write_pickles_and_what_says_where_they_are(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path, {"a": (1,), "b": "text"})
    finally:
        os.umask(before)
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {".index": 0o644, ".pickle": 0o644, ".txt": 0o666}


# -- seeing what others write


def test_a_refresh_shows_what_was_committed_since(tmp_path: Path) -> None:
    items = Items(tmp_path / "later")
    seen = [sorted(items)]
    for number in range(3):
        write(tmp_path / "later", {str(number): number}, f"{number}-a")
        items.refresh()
        seen.append(sorted(items))
    assert seen == [[], ["0"], ["0", "1"], ["0", "1", "2"]]


def test_an_array_that_was_read_stays_while_the_file_grows(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a", interval=0) as writer:
        items, found = Items(tmp_path), []
        for number in range(20):
            writer.add(str(number), np.full(1000, number))
            items.refresh()
            found.append(items.get(str(number)))
    assert [int(array.sum()) for array in found] == [1000 * number for number in range(20)]


def test_what_was_read_of_an_index_is_not_read_again(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a", interval=0) as writer:
        writer.add("a", 1)
        items = Items(tmp_path)
        index = tmp_path / "1-a.index"
        with open(index, "r+b") as file:
            file.write(b"#" * (index.stat().st_size - 1))
        writer.add("b", 2)
        items.refresh()
    assert [items.get("a"), items.get("b")] == [1, 2]


def test_the_writer_with_the_highest_number_counts_whoever_is_seen_first(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(ItemWriter(tmp_path, name, interval=0)) for name in ("10-a", "9-b", "9-c", "x")]
        for order in itertools.permutations(writers):
            key = ",".join(writer.writer for writer in order)
            items = Items(tmp_path)
            for writer in order:
                writer.add(key, writer.writer)
                items.refresh()
            assert items.get(key) == Items(tmp_path).get(key) == "10-a" and items.writer_number(key) == 10


def test_of_writers_with_one_number_the_last_by_name_counts(tmp_path: Path) -> None:
    write(tmp_path, {"k": "b"}, "1-b")
    write(tmp_path, {"k": "a"}, "1-a")
    assert read(tmp_path) == {"k": "b"}


def test_what_a_writer_wrote_later_counts(tmp_path: Path) -> None:
    with ItemWriter(tmp_path, "1-a") as writer:
        for value in ("first", 2, "third"):
            writer.add("k", value)
    assert read(tmp_path) == {"k": "third"}


def test_what_is_discarded_is_not_there_until_it_is_written_again(tmp_path: Path) -> None:
    write(tmp_path, {"k": "old"}, "1-a")
    write(tmp_path, {"k": "bad"}, "2-a")
    items = Items(tmp_path)
    items.discard("k")
    items.refresh()
    before = "k" in items
    write(tmp_path, {"k": "new"}, "3-a")
    items.refresh()
    assert not before and items.get("k") == "new"


def test_what_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    items = Items(tmp_path)
    items.discard("k")
    with pytest.raises(KeyError):
        items.get("k")


def test_what_the_caller_does_in_between_does_not_disturb_iteration(tmp_path: Path) -> None:
    write(tmp_path, {str(number): number for number in range(10)})
    items = Items(tmp_path)
    for key in items:
        items.discard(key)
    assert len(items) == 0


def test_items_travel_as_their_folder(tmp_path: Path) -> None:
    write(tmp_path, {"k": np.arange(3)})
    items = Items(tmp_path, {"somebody"})
    items.get("k")
    again = pickle.loads(pickle.dumps(items))
    assert exactly(again.get("k"), np.arange(3)) and again.trust_users == {"somebody"}


@pytest.mark.app
def test_items_survive_a_fork(tmp_path: Path) -> None:
    write(tmp_path, {"a": np.arange(3), "b": "text", "c": (1,)})
    items = Items(tmp_path)
    known = {key: items.get(key) for key in items}

    def child() -> bool:
        write(tmp_path, {"d": "more"}, "2-a")
        items.refresh()
        return all(exactly(items.get(key), value) for key, value in known.items()) and items.get("d") == "more"

    assert in_child(child) is True and items.get("b") == "text"


@pytest.mark.app
def test_a_fork_in_the_middle_of_a_refresh_locks_nobody_out(tmp_path: Path) -> None:
    items = Items(tmp_path)

    def child() -> int:
        items.refresh()
        return len(items)

    with items._lock:  # as by another thread
        assert in_child(child) == 0


def test_threads_read_the_same_files_at_once(tmp_path: Path) -> None:
    values = {str(number): [number] * number for number in range(200)}
    write(tmp_path, values)
    items = Items(tmp_path)
    wrong: list[str] = []

    def check() -> None:
        wrong.extend(key for key in items for _ in range(5) if items.get(key) != values[key])

    threads = [threading.Thread(target=check) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert wrong == []


def test_items_are_opened_without_their_data(tmp_path: Path) -> None:
    for writer in range(100):
        write(tmp_path, {f"{writer}.{number}": number for number in range(1000)}, f"{writer}-a")
    for path in tmp_path.glob("*.json"):
        path.unlink()
    assert len(Items(tmp_path)) == 100_000


def test_an_item_is_read_without_the_others(tmp_path: Path) -> None:
    write(tmp_path, {"a": "first", "b": "second"}, "1-a")
    write(tmp_path, {"c": "third"}, "2-a")
    (tmp_path / "2-a.txt").unlink()
    (tmp_path / "1-a.txt").write_bytes(b"\0\0\0\0\0second")
    assert Items(tmp_path).get("b") == "second"


@pytest.mark.app
def test_many_writers_do_not_use_up_what_a_process_can_open(tmp_path: Path) -> None:
    for writer in range(300):
        write(tmp_path, {f"a{writer}": np.full(3, writer), f"t{writer}": f"text {writer}"}, f"{writer}-a")

    def child() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
        found = read(tmp_path)
        arrays = [found[f"a{writer}"] for writer in range(300)]
        assert all(exactly(array, np.full(3, writer)) for writer, array in enumerate(arrays))
        return len(found), sum(array.flags.writeable for array in arrays)

    assert in_child(child) == (600, 0)


def test_a_file_system_without_maps_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a": np.arange(3)})
    monkeypatch.setattr(data_files, "_MAPPED", 0)
    assert exactly(read(tmp_path)["a"], np.arange(3))


# -- what cannot be trusted

STORED: dict[str, tp.Any] = {
    "array": np.arange(1000),
    "json": ["x" * 100],
    "txt": "x" * 100,
    "pickle": (1, 2, "x" * 100),
    "parquet": pd.DataFrame({"a": [1, 2]}),
}
DAMAGE: dict[str, tp.Callable[[Path], tp.Any]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "changed in one byte": lambda path: path.write_bytes(_flip(path.read_bytes())),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("name", STORED)
def test_a_damaged_item_is_never_returned(tmp_path: Path, name: str, damage: tp.Callable[[Path], tp.Any]) -> None:
    write(tmp_path, {"k": STORED[name]})
    damage(tmp_path / f"1-a.{name}")
    with pytest.raises(CorruptEntryError, match=rf"item 'k'.*1-a\.{name}"):
        Items(tmp_path).get("k")


@pytest.mark.parametrize("name", STORED)
def test_damage_to_one_item_leaves_the_others(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"a": STORED[name], "k": STORED[name]})
    size = (tmp_path / f"1-a.{name}").stat().st_size
    os.truncate(tmp_path / f"1-a.{name}", size - 1)
    assert repr(Items(tmp_path).get("a")) == repr(STORED[name])


@pytest.mark.parametrize("name", [name for name in STORED if name != "array"])
def test_bytes_are_compared_each_time(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"k": STORED[name]})
    items = Items(tmp_path)
    items.get("k")
    DAMAGE["changed in one byte"](tmp_path / f"1-a.{name}")
    with pytest.raises(CorruptEntryError):
        items.get("k")


def test_an_array_is_compared_once_and_its_size_each_time(tmp_path: Path) -> None:
    write(tmp_path, {"k": STORED["array"]})
    items = Items(tmp_path)
    items.get("k")
    DAMAGE["changed in one byte"](tmp_path / "1-a.array")
    changed = items.get("k")
    again = Items(tmp_path)
    with pytest.raises(CorruptEntryError):
        again.get("k")
    assert not exactly(changed, STORED["array"])


HEADS = [(b'"<i8"', b'"<f8"'), (b"[1000]", b"[10,100]"), (b"[1000]", b"[999]"), (b'"array"', b'"json" ')]


@pytest.mark.parametrize(("before", "after"), HEADS, ids=[after.decode() for _, after in HEADS])
def test_an_item_whose_description_is_damaged_is_never_returned(tmp_path: Path, before: bytes, after: bytes) -> None:
    write(tmp_path, {"k": np.arange(1000)})
    index = tmp_path / "1-a.index"
    assert before in index.read_bytes()
    index.write_bytes(index.read_bytes().replace(before, after))
    with pytest.raises(CorruptEntryError, match="item 'k'"):
        Items(tmp_path).get("k")


def test_an_item_whose_key_is_damaged_is_never_returned(tmp_path: Path) -> None:
    write(tmp_path, {"key 1": "text"})
    index = tmp_path / "1-a.index"
    index.write_bytes(index.read_bytes().replace(b"key 1", b"key 3"))
    with pytest.raises(CorruptEntryError, match="item 'key 3'"):
        Items(tmp_path).get("key 3")


@pytest.mark.parametrize("place", [b"-1,4", b"2,4", b"0,400", b"0,1000000000000000000", b"1000000000000000000,4"])
def test_an_item_whose_place_is_damaged_is_never_returned(tmp_path: Path, place: bytes) -> None:
    write(tmp_path, {"k": "text", "l": "more"})
    index = tmp_path / "1-a.index"
    index.write_bytes(index.read_bytes().replace(b"0,4", place, 1))
    items = Items(tmp_path)
    with pytest.raises((CorruptEntryError, KeyError)):
        items.get("k")


@pytest.mark.parametrize("name", ["pickle", "index"])
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_pickle_that_others_can_write_or_place_is_not_loaded(tmp_path: Path, name: str, mode: int) -> None:
    write(tmp_path, {"k": (1, 2)})
    (tmp_path / f"1-a.{name}").chmod(mode)
    with pytest.raises(CacheError, match=rf"1-a\.{name} can be written by others.*chmod go-w"):
        Items(tmp_path).get("k")


@needs_root
@pytest.mark.parametrize("name", ["pickle", "index"])
def test_a_pickle_of_another_user_is_not_loaded_and_the_error_says_how_to(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"k": (1, 2)})
    os.chown(tmp_path / f"1-a.{name}", NOBODY, NOBODY)
    with pytest.raises(CacheError, match=r"belongs to nobody.*trust_users=\[nobody\]"):
        Items(tmp_path).get("k")


@needs_root
def test_a_pickle_of_a_trusted_user_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, {"k": (1, 2)})
    for path in tmp_path.iterdir():
        os.chown(path, NOBODY, NOBODY)
    assert Items(tmp_path, {"nobody"}).get("k") == (1, 2)


@needs_root
@pytest.mark.parametrize("name", ["array", "json", "txt", "parquet"])
def test_what_runs_no_code_is_loaded_from_anybody(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"k": STORED[name]})
    for path in tmp_path.iterdir():
        os.chown(path, NOBODY, NOBODY)
    assert repr(Items(tmp_path).get("k")) == repr(STORED[name])


def test_a_pickle_whose_class_is_gone_says_what_today_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gone_tomorrow")
    exec("class Thing: ...", vars(module))
    monkeypatch.setitem(sys.modules, "gone_tomorrow", module)
    write(tmp_path, {"k": vars(module)["Thing"]()})
    monkeypatch.undo()
    with pytest.raises(CacheError, match=r"item 'k'.*intact.*gone_tomorrow"):
        Items(tmp_path).get("k")


def test_an_index_that_is_no_file_hides_no_other_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"k": 1})
    (tmp_path / "2-b.index").mkdir()
    assert Items(tmp_path).get("k") == 1
    assert "2-b.index is not a file: a folder is in its place" in caplog.text


def test_an_array_of_objects_is_never_made_of_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"k": np.arange(3)})
    items = Items(tmp_path)
    items._places["k"][0].fields["dtype"] = "O"  # as whoever can make up checksums could write it
    with pytest.raises(CorruptEntryError, match="an array of object, which is never written"):
        items.get("k")


def test_an_array_that_does_not_fill_its_bytes_is_never_returned(tmp_path: Path) -> None:
    write(tmp_path, {"k": np.arange(3)})
    items = Items(tmp_path)
    items._places["k"][0].fields["shape"] = [2]
    with pytest.raises(CorruptEntryError, match="24 bytes, and its shape takes 16"):
        items.get("k")


@pytest.mark.app
@needs_root
def test_what_cannot_be_read_just_now_is_not_taken_for_damaged(tmp_path: Path) -> None:
    write(tmp_path, {"k": "text"})
    (tmp_path / "1-a.txt").chmod(0)
    tmp_path.chmod(0o755)

    def child() -> str:
        items = Items(tmp_path)
        os.chdir(tmp_path)
        items.folder = Path()
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return str(items.get("k"))

    assert in_child(child).startswith("CacheError: item 'k'")


# -- torn and spoiled indexes


def test_a_last_line_that_is_cut_anywhere_is_not_there_and_the_others_are(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1, "k": 2})
    write(tmp_path, {"b": 3}, "2-a")
    index = tmp_path / "1-a.index"
    whole = index.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    seen = []
    for end in range(last, len(whole)):
        index.write_bytes(whole[:end])
        seen.append(read(tmp_path))
    assert seen == [{"a": 1, "b": 3}] * (len(whole) - last)


def test_a_line_that_is_completed_later_is_read_then(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1, "k": 2})
    index = tmp_path / "1-a.index"
    whole = index.read_bytes()
    index.write_bytes(whole[:-5])
    items = Items(tmp_path)
    before = "k" in items
    index.write_bytes(whole)
    items.refresh()
    assert not before and items.get("k") == 2


GARBAGE = [
    b"\n",
    b"{}\n",
    b"{\n",
    b"\xff\xfe\n",
    b"[[[[\n",
    b'["x",1]\n',
    b'["x",0,"1",2]\n',
    b"null\n",
    b"1],[2\n",
]


@pytest.mark.parametrize("garbage", [*GARBAGE, b"[" * 100_000 + b"\n"], ids=range(len(GARBAGE) + 1))
def test_a_spoiled_line_harms_no_other(tmp_path: Path, garbage: bytes) -> None:
    write(tmp_path, {"a": 1, "k": 2})
    index = tmp_path / "1-a.index"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([*lines[:2], garbage, *lines[2:]]))
    assert read(tmp_path) == {"a": 1, "k": 2}


def test_what_follows_zeros_is_read_when_they_are_filled(tmp_path: Path) -> None:
    """Pages of a file may arrive in another order than they were written in."""
    write(tmp_path, {"a": 1, "k": 2, "l": 3})
    index = tmp_path / "1-a.index"
    whole = index.read_bytes()
    start, end = whole.index(b'"k"'), whole.index(b'"l"') - 1
    index.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    items = Items(tmp_path)
    before = list(items)
    index.write_bytes(whole)
    items.refresh()
    assert before == ["a"] and [*items] == ["a", "k", "l"]


def test_items_below_a_header_that_is_gone_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1})
    index = tmp_path / "1-a.index"
    index.write_bytes(index.read_bytes().partition(b"\n")[2])
    assert read(tmp_path) == {}


# -- processes


@pytest.mark.app
def test_writers_and_readers_work_at_once(tmp_path: Path) -> None:
    """Four processes write, one reads all the time: whatever it sees is right, and in the end it sees all."""

    def writes(process: int) -> None:
        with ItemWriter(tmp_path, f"{process}-a", interval=0.002) as writer:
            for number in range(300):
                writer.add(f"{process}.{number}", np.full(7, number) if number % 3 else f"{process} {number}")

    children = [fork.Process(target=writes, args=(process,), daemon=True) for process in range(4)]
    for child in children:
        child.start()
    items, seen = Items(tmp_path), 0
    while any(child.is_alive() for child in children):
        items.refresh()
        for key in itertools.islice(items, seen, None):
            assert _as_written(key, items.get(key)), key
        seen = len(items)
    for child in children:
        child.join(60)
    items.refresh()
    assert len(items) == 1200 and all(_as_written(key, items.get(key)) for key in items)


def _as_written(key: str, value: tp.Any) -> bool:
    process, number = map(int, key.split("."))
    return exactly(value, np.full(7, number) if number % 3 else f"{process} {number}")


@pytest.mark.app
def test_a_killed_writer_loses_only_what_was_not_committed(tmp_path: Path) -> None:
    """Thirty writers are killed at random moments; what one had committed before is there, and right."""
    moments = random.Random(0)
    counts = []
    for writer in range(30):
        here, there = fork.Pipe(False)

        def writes(writer: int = writer, there: tp.Any = there) -> None:
            with ItemWriter(tmp_path, f"{writer}-a", interval=3600) as opened:
                for number in itertools.count():
                    opened.add(f"{writer}.{number}", [number])
                    if number % 7 == 6:
                        opened.commit()
                        there.send(number + 1)

        child = fork.Process(target=writes, daemon=True)
        child.start()
        there.close()
        for _ in range(moments.randint(1, 9)):
            assert here.poll(60)
            committed = here.recv()
        child.join(moments.uniform(0, 0.003))  # not a sleep: the moment of the fault
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join(60)
        with contextlib.suppress(EOFError):
            while True:
                committed = here.recv()
        found = {key: value for key, value in read(tmp_path).items() if key.startswith(f"{writer}.")}
        counts.append(len(found))
        assert len(found) >= committed and found == {f"{writer}.{number}": [number] for number in range(len(found))}
    assert len(set(counts)) > 1


@pytest.mark.app
def test_a_writer_killed_between_items_leaves_its_last_commit(tmp_path: Path) -> None:
    here, there = fork.Pipe(False)

    def writes() -> None:
        writer = ItemWriter(tmp_path, "1-a", clock=Clock())
        writer.add("a", 1)
        writer.commit()
        writer.add("b", "x" * 3_000_000)  # more than waits in memory
        there.send("ready")
        signal.pause()

    child = fork.Process(target=writes, daemon=True)
    child.start()
    assert here.poll(60)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join(60)
    assert read(tmp_path) == {"a": 1}


# -- a full disk


def with_room_for(size: int, function: tp.Callable[[], tp.Any]) -> tp.Any:
    """In a process that may write files of ``size`` bytes only: writing fails half way, as on a full disk."""

    def limited() -> tp.Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return function()

    return in_child(limited)


@pytest.mark.app
def test_a_full_disk_is_an_error_that_names_it_and_keeps_what_was_committed(tmp_path: Path) -> None:
    def writes() -> None:
        writer = ItemWriter(tmp_path, "1-a", interval=0)
        for number in itertools.count():
            writer.add(str(number), "x" * 1000)

    said = with_room_for(10_500, writes)
    assert said.startswith("CacheError") and "1-a.index" in said and os.strerror(errno.EFBIG) in said
    assert read(tmp_path) == {str(number): "x" * 1000 for number in range(10)}


@pytest.mark.app
def test_nothing_is_added_after_the_disk_failed(tmp_path: Path) -> None:
    def writes() -> tuple[bool, str]:
        writer = ItemWriter(tmp_path, "1-a", clock=Clock())
        writer.add("a", "x" * 20_000)
        with pytest.raises(CacheError):
            writer.commit()
        with pytest.raises(CacheError, match="nothing can be added"):
            writer.add("b", 1)
        writer.close()
        return writer.is_open, ""

    assert with_room_for(10_000, writes) == (False, "") and read(tmp_path) == {}


@pytest.mark.app
def test_an_index_for_which_there_is_no_room_keeps_its_whole_lines(tmp_path: Path) -> None:
    def writes() -> None:
        with ItemWriter(tmp_path, "1-a") as writer:
            for number in range(1000):
                writer.add(str(number), 1)

    said = with_room_for(2000, writes)
    found = read(tmp_path)
    assert said.startswith("CacheError") and found == {str(number): 1 for number in range(len(found))} and found


@pytest.mark.app
def test_a_large_item_for_which_there_is_no_room_leaves_the_others(tmp_path: Path) -> None:
    def writes() -> None:
        with ItemWriter(tmp_path, "1-a", clock=Clock()) as writer:
            writer.add("a", "small")
            with pytest.raises(CacheError, match="result of item 'b' cannot be stored: File too large"):
                writer.add("b", "x" * 4_000_000)
            writer.add("c", "more")

    assert with_room_for(3_000_000, writes) is None
    assert read(tmp_path) == {"a": "small", "c": "more"}
    assert (tmp_path / "1-a.txt").stat().st_size == len("smallmore")


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"item 'k' cannot be stored.*file"):
        write(tmp_path / "file", {"k": 1})


@pytest.mark.parametrize("name", ["1-a.index", "1-a.json"])
def test_a_commit_to_a_file_that_was_removed_is_an_error(tmp_path: Path, name: str) -> None:
    writer = ItemWriter(tmp_path, "1-a", clock=Clock())
    writer.add("a", 1)
    writer.commit()
    (tmp_path / name).unlink()
    writer.add("b", 1)
    with pytest.raises(CacheError, match="No such file"):
        writer.commit()


@pytest.mark.parametrize("again", [False, True])
def test_a_writer_whose_folder_was_removed_is_not_open(tmp_path: Path, again: bool) -> None:
    """Made again or not."""
    writer = ItemWriter(tmp_path / "items", "1-a")
    before = writer.is_open
    writer.add("a", 1)
    writer.commit()
    there = writer.is_open
    shutil.rmtree(tmp_path / "items")
    if again:
        write(tmp_path / "items", {"a": 2})
    assert (before, there, writer.is_open) == (True, True, False)
