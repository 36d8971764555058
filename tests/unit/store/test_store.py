"""Entries on disk: what is stored comes back exactly, and what cannot be trusted is never taken for a value."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import multiprocessing
import os
import random
import stat
import tempfile
import threading
import types
import typing as tp
from pathlib import Path

import numpy as np
import pytest
from alike import ARRAYS, JSON_LEAVES, KEYS, LEAVES, TEXT, UNUSUAL, exactly, nested
from hypothesis import example, given
from hypothesis_profiles import examples
from stored import store_value
from users import as_user, needs_root

from hydra_exca import checksums, files, paths
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError
from hydra_exca.identity import uid
from hydra_exca.job import payload
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry, FactoryFolder, Outcome, values

stable = examples(150)
NOBODY = 65534
fork = multiprocessing.get_context("fork")
PROJECT = {"remote": "host/project", "path": ""}


def identity(value: tp.Any = 1, label: str | None = None) -> uid.Identity:
    return uid.make_identity("train.main", "0", {"x": value}, label=label)


def claim(number: int = 1, token: str = "launch", **owner: tp.Any) -> Claim:
    return Claim(number, ClaimState.RUNNING, token, "local", "1", 0, owner)


def completed(value: tp.Any, of: uid.Identity | None = None) -> Outcome:
    return Outcome(Status.COMPLETED, 0, (of or identity()).to_json(), value=value)


def commit(entry: Entry, value: tp.Any, of: uid.Identity | None = None) -> Outcome:
    """What a job does: takes the next claim, stores its value, writes the marker."""
    owner = entry.current_claim()
    mine = claim(1 if owner is None else owner.number + 1)
    assert entry.publish_claim(mine) and entry.commit_outcome(
        mine, completed(store_value(entry.path, mine.number, value), of)
    )
    outcome = entry.outcome()
    assert outcome is not None
    return outcome


def stored_and_loaded(value: tp.Any) -> tp.Any:
    with tempfile.TemporaryDirectory() as folder:
        entry = Entry(Path(folder))
        return entry.load_value(commit(entry, value))


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Entry(tmp_path)


@pytest.fixture
def open_folder() -> tp.Iterator[Path]:
    """A folder that all users reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def as_nobody(function: tp.Callable[[], tp.Any]) -> tp.Any:
    return as_user(NOBODY, function)


# -- values come back as they were


@stable
@given(nested(JSON_LEAVES, TEXT))
@example("\ud83d\ude00")  # two lone surrogates, which JSON takes for one character
@example({"\ud83d\ude00": 1, "\U0001f600": 2})
def test_what_json_can_say_comes_back_exactly(value: tp.Any) -> None:
    assert exactly(value, stored_and_loaded(value))


@stable
@given(nested(LEAVES, KEYS))
def test_plain_python_comes_back_exactly(value: tp.Any) -> None:
    assert exactly(value, stored_and_loaded(value))


@stable
@given(nested(JSON_LEAVES, TEXT).map(lambda value: [value, "x" * values.INLINE_BYTES]))
def test_a_large_value_comes_back_exactly(value: tp.Any) -> None:
    assert exactly(value, stored_and_loaded(value))


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@stable
@given(ARRAYS)
def test_an_array_comes_back_exactly(value: np.ndarray) -> None:
    assert exactly(value, stored_and_loaded(value))


@pytest.mark.parametrize("value", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_an_unusual_value_comes_back_exactly(value: tp.Any) -> None:
    assert exactly(value, stored_and_loaded(value)) or repr(value) == repr(stored_and_loaded(value))


def test_a_list_that_contains_itself_comes_back() -> None:
    value: list[tp.Any] = []
    value.append(value)
    back = stored_and_loaded(value)
    assert back[0] is back


def test_the_records_of_a_record_array_keep_their_attributes() -> None:
    value = np.array([(1,)], dtype=np.dtype((np.record, [("a", "i4")])))
    assert stored_and_loaded(value)[0].a == 1


def test_a_masked_array_keeps_its_mask() -> None:
    assert stored_and_loaded(np.ma.masked_equal([1, 2], 2)).mask.tolist() == [False, True]


@pytest.mark.parametrize(
    ("value", "format_", "where"),
    [
        ({"a": [1]}, "json", "inline"),
        (["x" * 5000], "json", "file"),
        (np.zeros(3), "npy", "file"),
        ((1, 2), "pickle", "file"),
        ({1: 2}, "pickle", "file"),
    ],
)
def test_a_format_is_chosen_by_type_and_named_in_the_marker(
    entry: Entry, value: tp.Any, format_: str, where: str
) -> None:
    record = commit(entry, value).value
    assert record is not None and record["format"] == format_ and where in record


# -- values that cannot be trusted

STORED = {"json": ["x" * 5000], "npy": np.arange(1000), "pickle": (1, 2, "x" * 100)}
DAMAGE: dict[str, tp.Callable[[Path], tp.Any]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "changed in one byte": lambda path: path.write_bytes(_flip(path.read_bytes())),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("value", STORED.values(), ids=STORED.keys())
def test_a_damaged_value_is_never_returned(entry: Entry, value: tp.Any, damage: tp.Callable[[Path], tp.Any]) -> None:
    outcome = commit(entry, value)
    assert outcome.value is not None
    damage(entry.path / outcome.value["file"])
    with pytest.raises(CorruptEntryError, match=outcome.value["file"]):
        entry.load_value(outcome)


def pickled(entry: Entry) -> tuple[Outcome, Path]:
    outcome = commit(entry, STORED["pickle"])
    assert outcome.value is not None
    return outcome, entry.path / outcome.value["file"]


@needs_root
def test_a_pickle_of_another_user_is_not_loaded_and_the_error_says_how_to(entry: Entry) -> None:
    outcome, path = pickled(entry)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(CacheError, match=r"belongs to nobody.*trust_users=\[nobody\]"):
        entry.load_value(outcome)


@needs_root
def test_a_pickle_of_a_trusted_user_is_loaded(entry: Entry) -> None:
    outcome, path = pickled(entry)
    os.chown(path, NOBODY, NOBODY)
    assert Entry(entry.path, {"nobody"}).load_value(outcome) == STORED["pickle"]


@pytest.mark.app
@needs_root
def test_a_pickle_of_root_is_loaded_by_others(open_folder: Path) -> None:
    outcome, _ = pickled(Entry(open_folder))
    assert as_nobody(lambda: Entry(open_folder).load_value(outcome)) == STORED["pickle"]


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_pickle_that_others_can_write_is_not_loaded(entry: Entry, mode: int) -> None:
    outcome, path = pickled(entry)
    path.chmod(mode)
    with pytest.raises(CacheError, match="chmod go-w"):
        entry.load_value(outcome)


@needs_root
@pytest.mark.parametrize("format_", ["json", "npy"])
def test_what_runs_no_code_is_loaded_from_anybody(entry: Entry, format_: str) -> None:
    outcome = commit(entry, STORED[format_])
    assert outcome.value is not None
    os.chown(entry.path / outcome.value["file"], NOBODY, NOBODY)
    assert exactly(entry.load_value(outcome), STORED[format_])


def test_a_pickle_that_is_not_trusted_is_not_even_opened_by_pickle(entry: Entry) -> None:
    evil = f"cos\nmkdir\n(V{entry.path}/evil\ntR.".encode()
    outcome, path = pickled(entry)
    path.write_bytes(evil)
    path.chmod(0o666)
    with contextlib.suppress(CacheError):
        entry.load_value(outcome)
    assert not (entry.path / "evil").exists()


def test_a_pickle_whose_class_is_gone_says_what_today_lacks(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gone_tomorrow")
    exec("class Thing: ...", vars(module))
    monkeypatch.setitem(__import__("sys").modules, "gone_tomorrow", module)
    outcome = commit(entry, vars(module)["Thing"]())
    monkeypatch.undo()
    with pytest.raises(CacheError, match=r"intact.*gone_tomorrow.*mode=force"):
        entry.load_value(outcome)


def test_code_is_written_without_write_permission_for_others(entry: Entry) -> None:
    before = os.umask(0)
    try:
        _, path = pickled(entry)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_an_outcome_follows_the_umask(entry: Entry) -> None:
    before = os.umask(0o002)
    try:
        commit(entry, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((entry.path / paths.OUTCOME).stat().st_mode) == 0o664


def test_a_payload_is_only_its_owners_to_read(tmp_path: Path) -> None:
    header = payload.Payload("local", b"", (), (), "/", None, False)
    payload.write_payload(tmp_path, header, [payload.Part("e", {}, b"")])
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (paths.PAYLOAD, paths.ARGUMENTS)}
    assert modes == {0o600}


@needs_root
@pytest.mark.parametrize("name", [paths.PAYLOAD, paths.ARGUMENTS])
def test_a_payload_of_another_user_is_not_loaded(tmp_path: Path, name: str) -> None:
    payload.write_payload(
        tmp_path, payload.Payload("local", b"", (), (), "/", None, False), [payload.Part("e", {}, b"")]
    )
    os.chown(tmp_path / name, NOBODY, NOBODY)
    with pytest.raises(CacheError, match="nobody"):
        payload.read_part(tmp_path, payload.read_payload(tmp_path), 0)


def test_each_job_of_a_payload_reads_its_own(tmp_path: Path) -> None:
    jobs = [payload.Part(f"entry-{n}", {"n": n}, b"a" * n) for n in range(5)]
    payload.write_payload(tmp_path, payload.Payload("local", b"p", (), (), "/", None, False), jobs)
    header = payload.read_payload(tmp_path)
    assert [payload.read_part(tmp_path, header, position) for position in range(5)] == jobs


# -- what cannot be pickled


class Holder:
    def __init__(self, held: tp.Any) -> None:
        self.held = held


lock = threading.Lock()


def uses_a_global() -> tp.Any:
    return lock


def _captures() -> tp.Any:
    captured = threading.Lock()
    return lambda: captured


def _local_copy_of_uses_a_global() -> tp.Any:
    """A function that travels by value, as one of a notebook."""
    return types.FunctionType(uses_a_global.__code__, {"lock": lock, "__name__": "__main__"}, "elsewhere")


UNPICKLABLE: dict[str, tuple[tp.Any, str]] = {
    "an attribute": (Holder(lock), "attribute 'held'"),
    "an attribute of an attribute": (Holder(Holder(lock)), "attribute 'held' -> attribute 'held'"),
    "a dict": ({"a": 1, "b": [1, lock]}, r"\['b'\] -> \[1\]"),
    "a captured variable": (_captures(), "captured variable 'captured'"),
    "a global": (_local_copy_of_uses_a_global(), "global 'lock'"),
    "a partial": (functools.partial(print, lock), "lock"),
    "itself": (lock, "it is of type _thread.lock"),
}


@pytest.mark.parametrize(("value", "culprit"), UNPICKLABLE.values(), ids=UNPICKLABLE.keys())
def test_what_cannot_be_pickled_is_named(value: tp.Any, culprit: str) -> None:
    with pytest.raises(ConfigError, match=f"the function cannot be pickled.*{culprit}"):
        payload.pickle_named(value, "the function")


def test_of_a_result_that_cannot_be_pickled_nothing_is_stored(entry: Entry) -> None:
    with pytest.raises(ConfigError, match="the result cannot be pickled"):
        store_value(entry.path, claim().number, Holder(lock))
    assert os.listdir(entry.path) == []


# -- outcomes that cannot be read

WHOLE = completed({"format": "json", "inline": 1}).to_json()
UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "truncated": WHOLE[: len(WHOLE) // 2],
    "garbage": b"\x80\x04garbage",
    "null": b"null",
    "a list": b"[]",
    "without fields": b"{}",
    "of an unknown status": WHOLE.replace(b"completed", b"perhaps"),
    "without an identity": json.dumps({**json.loads(WHOLE), "identity": None}).encode(),
    "completed without a value": completed(None).to_json(),
    "without a claim": checksums.dump_record({**json.loads(WHOLE), "claim": None}),
    "nested too deeply": WHOLE[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_outcome_that_cannot_be_read_is_corrupt(entry: Entry, content: bytes) -> None:
    (entry.path / paths.OUTCOME).write_bytes(content)
    with pytest.raises(CorruptEntryError, match=paths.OUTCOME):
        entry.outcome()


def test_an_outcome_that_is_a_folder_is_corrupt(entry: Entry) -> None:
    (entry.path / paths.OUTCOME).mkdir()
    with pytest.raises(CorruptEntryError, match=paths.OUTCOME):
        entry.outcome()


def test_an_outcome_that_is_set_aside_is_kept(entry: Entry) -> None:
    (entry.path / paths.OUTCOME).write_bytes(b"garbage")
    aside = entry.set_outcome_aside()
    assert aside is not None and aside.read_bytes() == b"garbage" and entry.outcome() is None


def test_no_outcome_is_no_error(entry: Entry) -> None:
    assert entry.outcome() is None and entry.read_state() == (None, None) and entry.set_outcome_aside() is None


@pytest.mark.parametrize("file", ["claim", "name", "project"])
def test_a_file_that_a_crash_of_the_machine_left_empty_does_not_lock_the_entry(tmp_path: Path, file: str) -> None:
    """They are published without fsync, so after a loss of power they may be there and empty."""
    shelf = CacheFolder(tmp_path).factory_folder("train.main", "0")
    shelf.create(PROJECT)
    entry = shelf.open_entry(identity())
    entry.publish_claim(claim())
    names = {"claim": entry.path / "claim.1.json", "project": shelf.path / paths.PROJECT}
    os.truncate(names.get(file) or next((shelf.path / paths.NAMES).iterdir()), 0)
    again = CacheFolder(tmp_path).factory_folder("train.main", "0")
    again.create(PROJECT)
    entry = again.open_entry(identity())
    stored, _ = entry.read_state()
    assert stored is None and entry.publish_claim(claim(2))


# -- making room, giving up


@pytest.fixture
def forced(entry: Entry) -> Entry:
    """An entry with a value and an output folder, of which a forced attempt has set the old aside."""
    (entry.path / paths.OUTPUT).mkdir()
    (entry.output / "old").touch()
    commit(entry, ["old"] * 1000 + ["x" * 5000])
    owner = entry.current_claim()
    assert owner is not None
    entry.publish_claim(owner.next(ClaimState.QUEUED, token="forced"))
    entry.set_previous_aside(keep_output=False)
    return entry


def owner_of(entry: Entry) -> Claim:
    owner = entry.current_claim()
    assert owner is not None
    return owner


def test_a_forced_attempt_starts_without_outcome_and_output(forced: Entry) -> None:
    assert forced.outcome() is None and not forced.output.exists()


def test_giving_a_forced_attempt_up_brings_the_old_value_back(forced: Entry) -> None:
    assert forced.release_claim(owner_of(forced))
    outcome = forced.outcome()
    assert outcome is not None and forced.load_value(outcome)[0] == "old"


def test_giving_a_forced_attempt_up_brings_the_old_output_back(forced: Entry) -> None:
    forced.output.mkdir()
    (forced.output / "new").touch()
    forced.release_claim(owner_of(forced))
    assert os.listdir(forced.output) == ["old"]


def test_a_forced_attempt_that_completes_drops_the_old_value(forced: Entry) -> None:
    commit(forced, ["new"] * 3000)
    names = [name for name in os.listdir(forced.path) if name.startswith(("value", "previous"))]
    assert names == ["value.4.json"]


def test_a_forced_attempt_that_fails_keeps_the_old_value(forced: Entry) -> None:
    forced.commit_outcome(owner_of(forced), Outcome(Status.FAILED, 0, identity().to_json(), error={"kind": "raised"}))
    assert forced.load_value(forced.previous_outcome())[0] == "old"


def test_a_retry_keeps_the_output_folder(entry: Entry) -> None:
    entry.output.mkdir()
    (entry.output / "checkpoint").touch()
    entry.publish_claim(claim())
    entry.commit_outcome(claim(), Outcome(Status.FAILED, 0, identity().to_json(), error={"kind": "raised"}))
    entry.set_previous_aside(keep_output=True)
    assert entry.outcome() is None and os.listdir(entry.output) == ["checkpoint"]


def test_a_commit_that_was_killed_before_it_dropped_the_old_can_be_forced_again(
    forced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced.output.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "_drop_previous", lambda self, number: None)  # it died
        commit(forced, "new")
    (forced.output / "new").touch()
    forced.set_previous_aside(keep_output=False)
    assert not forced.output.exists()


def test_a_launch_that_was_killed_while_making_room_leaves_the_output_with_its_value(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.output.mkdir()
    (entry.output / "old").touch()
    commit(entry, "old")
    entry.publish_claim(owner_of(entry).next(ClaimState.QUEUED, token="forced"))
    replace = os.replace

    def dies(source: tp.Any, target: tp.Any) -> None:
        if Path(target).name == paths.PREVIOUS:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            entry.set_previous_aside(keep_output=False)
    entry.release_claim(owner_of(entry))
    assert entry.outcome() is not None and entry.output.exists()


def test_an_old_value_that_comes_back_late_does_not_replace_the_one_that_was_committed_meanwhile(
    forced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As found by the model of claims (tests/torture/claim_model.py): whoever restored it had stalled."""
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "_drop_previous", lambda self, number: None)  # not yet
        commit(forced, "new")
    forced.restore_previous()
    assert forced.load_value(tp.cast(Outcome, forced.outcome())) == "new"


def test_a_late_commit_does_not_drop_the_value_that_is_to_be_replaced_since(
    forced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As found by the model of claims: it had stalled, and another forced attempt has set its outcome aside."""
    drop = Entry._drop_previous

    def stall(entry: Entry, number: int) -> None:
        entry.publish_claim(owner_of(entry).next(ClaimState.QUEUED, token="forces, too"))
        entry.set_previous_aside(keep_output=False)
        drop(entry, number)

    monkeypatch.setattr(Entry, "_drop_previous", stall)
    mine = owner_of(forced)
    assert forced.commit_outcome(mine, completed(store_value(forced.path, mine.number, "new")))
    assert forced.load_value(tp.cast(Outcome, forced.previous_outcome())) == "new"


def test_a_restore_that_was_killed_half_way_can_be_forced_again(forced: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda path: None)  # it died
        forced.restore_previous()
    forced.set_previous_aside(keep_output=False)
    assert forced.outcome() is None and forced.has_previous()


def test_giving_up_what_another_has_taken_changes_nothing(forced: Entry) -> None:
    mine = owner_of(forced)
    forced.publish_claim(mine.next(ClaimState.QUEUED, token="other"))
    assert not forced.release_claim(mine) and forced.has_previous()


# -- files


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(file: tp.BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_file(tmp_path / "file", full)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_publishing_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    assert files.publish_file(tmp_path / "file", b"1") and not files.publish_file(tmp_path / "file", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"1"}


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ETIMEDOUT, errno.EIO])
def test_a_link_that_nfs_reports_as_failed_though_it_was_made_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", lying_link(number))
    assert files.publish_file(tmp_path / "file", b"1", durable=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def lying_link(number: int) -> tp.Callable[[tp.Any, tp.Any], None]:
    link = os.link

    def lie(source: tp.Any, target: tp.Any) -> None:
        link(source, target)
        raise OSError(number, os.strerror(number))

    return lie


def test_a_commit_goes_on_whose_claim_was_published_although_nfs_answered_nothing_any_more(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_, lie, silent = os.stat, lying_link(errno.ETIMEDOUT), [True]

    def unanswered(path: tp.Any, **options: tp.Any) -> os.stat_result:
        if silent and str(path).endswith(".tmp"):
            monkeypatch.setattr(os, "link", link)
            silent.clear()
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        return stat_(path, **options)

    link = os.link
    entry.publish_claim(claim())
    monkeypatch.setattr(files, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(os, "link", lie)
    monkeypatch.setattr(os, "stat", unanswered)
    assert entry.commit_outcome(claim(), completed({"format": "json", "inline": 1}))
    assert not silent and entry.outcome() is not None


def test_what_stands_in_the_place_of_an_outcome_is_not_waited_for(entry: Entry) -> None:
    entry.publish_claim(claim())
    os.mkfifo(entry.path / paths.OUTCOME)
    assert not entry.commit_outcome(claim(), completed({"format": "json", "inline": 1}))


# -- the folder and its shelves


def shelf(folder: Path) -> FactoryFolder:
    found = CacheFolder(folder).factory_folder("train.main", "0")
    found.create(PROJECT)
    return found


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "exca").touch()
    with pytest.raises(ConfigError, match="exca is not a folder"):
        CacheFolder(tmp_path / "exca").create()


@pytest.mark.app
@needs_root
@pytest.mark.parametrize("exists", [True, False])
def test_an_unwritable_folder_is_an_error_that_names_it(open_folder: Path, exists: bool) -> None:
    if exists:
        (open_folder / "exca").mkdir()
    said = as_nobody(lambda: CacheFolder(open_folder / "exca").create())
    assert said.startswith("ConfigError") and "cannot be written by nobody" in said


@pytest.mark.app
@needs_root
def test_a_shelf_of_another_user_that_cannot_be_written_is_an_error_that_says_so(open_folder: Path) -> None:
    (open_folder / "exca").mkdir()
    shelf(open_folder / "exca")
    (open_folder / "exca").chmod(0o777)
    said = as_nobody(lambda: shelf(open_folder / "exca").open_entry(identity()))
    assert said.partition(":")[0] in ("CacheError", "ConfigError")


def test_checking_a_folder_writes_nothing(tmp_path: Path) -> None:
    CacheFolder(tmp_path / "exca").check_writable()
    assert os.listdir(tmp_path) == []


def test_missing_parents_are_created(tmp_path: Path) -> None:
    CacheFolder(tmp_path / "no/such/exca").create()
    assert (tmp_path / "no/such/exca/CACHEDIR.TAG").is_file()


def test_a_file_among_the_parents_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is not a folder"):
        CacheFolder(tmp_path / "file/deep/exca").check_writable()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_system_without_hard_links_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """Faked: what link(2) answers on vfat and on some mounts of FUSE."""
    cache = CacheFolder(tmp_path / "exca")
    if not is_new:
        cache.create()

    def refuse(source: object, target: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CacheError, match="exca.* is on a file system without hard links"):
        shelf(tmp_path / "exca")


def test_a_cache_folder_is_marked_as_one(tmp_path: Path) -> None:
    CacheFolder(tmp_path / "exca").create()
    assert sorted(os.listdir(tmp_path / "exca")) == [".gitignore", "CACHEDIR.TAG"]


def test_a_shelf_of_another_project_is_refused(tmp_path: Path) -> None:
    shelf(tmp_path)
    with pytest.raises(CacheError, match=r"another project.*hydra\.launcher\.project"):
        CacheFolder(tmp_path).factory_folder("train.main", "0").create({"remote": "host/other", "path": ""})


def test_a_project_that_gets_a_git_remote_shares_its_results_with_clones(tmp_path: Path) -> None:
    factory = CacheFolder(tmp_path).factory_folder("train.main", "0")
    factory.create({"folder": "../one"})
    with pytest.raises(CacheError, match="another project.*cloned"):
        factory.check_project({"folder": "../clone", "remote": "host/project", "path": ""})
    factory.create({"folder": "../one", "remote": "host/project", "path": ""})
    factory.check_project({"folder": "../clone", "remote": "host/project", "path": ""})
    with pytest.raises(CacheError, match="another project"):
        factory.create({"folder": "../fork", "remote": "host/fork", "path": ""})


def test_an_entry_is_found_again_after_the_folder_was_moved(tmp_path: Path) -> None:
    commit(shelf(tmp_path / "a").open_entry(identity()), "value")
    os.rename(tmp_path / "a", tmp_path / "b")
    found = CacheFolder(tmp_path / "b").factory_folder("train.main", "0").find_entry(identity())
    assert found is not None and found.load_value(tp.cast(Outcome, found.outcome())) == "value"


def test_an_entry_keeps_its_name_under_another_label(tmp_path: Path) -> None:
    first = shelf(tmp_path).open_entry(identity(1, label="seed=1"))
    assert shelf(tmp_path).open_entry(identity(1, label="model=big,seed=1")).path == first.path


@pytest.mark.app
def test_one_identity_under_many_labels_at_one_moment_is_one_entry(tmp_path: Path) -> None:
    shelf(tmp_path)
    barrier = fork.Barrier(8)

    def opens(number: int) -> None:
        mine = CacheFolder(tmp_path).factory_folder("train.main", "0")
        for round_ in range(20):
            barrier.wait(30)
            mine.refresh()
            mine.open_entry(identity(round_, label=f"label{number}"))

    children = [fork.Process(target=opens, args=(number,)) for number in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    entries = [name for name in os.listdir(tmp_path / "train.main,0") if name.startswith("label")]
    assert [child.exitcode for child in children] == [0] * 8 and len(entries) == 20


@functools.cache
def colliding() -> tuple[uid.Identity, uid.Identity]:
    """Two identities with one label and the same first eight digits; about 80,000 tries find them."""
    seen: dict[str, uid.Identity] = {}
    for number in itertools.count():
        one = identity(number, label="same")
        other = seen.setdefault(one.digest[:8], one)
        if other is not one:
            return other, one
    raise AssertionError


def test_of_two_identities_with_the_same_eight_digits_the_newcomer_takes_sixteen(tmp_path: Path) -> None:
    first, second = colliding()
    names = [shelf(tmp_path).open_entry(one).uid for one in (first, second)]
    assert names == [first.uid(8), second.uid(16)]


@pytest.mark.parametrize("order", [1, -1])
def test_two_identities_with_the_same_eight_digits_keep_their_values(tmp_path: Path, order: int) -> None:
    for one in colliding():
        commit(shelf(tmp_path).open_entry(one), one.fields["x"], one)
    mine = shelf(tmp_path)
    found = [mine.open_entry(one) for one in colliding()[::order]]
    assert [e.load_value(tp.cast(Outcome, e.outcome())) for e in found] == [
        one.fields["x"] for one in colliding()[::order]
    ]


def test_an_entry_of_another_identity_is_never_opened_though_the_record_of_names_is_lost(tmp_path: Path) -> None:
    """A copy of the folder may leave hidden folders out."""
    first, second = colliding()
    commit(shelf(tmp_path).open_entry(first), "first", first)
    names = tmp_path / "train.main,0" / paths.NAMES
    for path in names.iterdir():
        path.unlink()
    assert shelf(tmp_path).open_entry(second).outcome() is None


def test_a_default_entry_under_other_rules_is_never_opened(tmp_path: Path) -> None:
    today = uid.make_identity("train.main", "0", {})
    before = shelf(tmp_path).open_entry(today)
    stored = {**today.to_json(), "scheme": uid.SCHEME - 1, "digest": "0" * 64}
    mine = claim()
    before.publish_claim(mine)
    before.commit_outcome(mine, Outcome(Status.COMPLETED, 0, stored, value={"format": "json", "inline": "old"}))
    assert shelf(tmp_path).open_entry(today).outcome() is None


def test_what_others_created_since_is_seen_after_a_refresh(tmp_path: Path) -> None:
    mine = shelf(tmp_path)
    assert mine.find_entry(identity()) is None
    shelf(tmp_path).open_entry(identity())
    mine.refresh()
    assert mine.find_entry(identity()) is not None


def test_an_entry_with_an_unreadable_outcome_is_still_found(tmp_path: Path) -> None:
    entry = shelf(tmp_path).open_entry(identity())
    (entry.path / paths.OUTCOME).write_bytes(b"{")
    found = shelf(tmp_path).find_entry(identity())
    assert found is not None and found.path == entry.path


# -- killed at any moment


@pytest.mark.app
def test_a_process_killed_while_committing_leaves_the_old_value_or_the_new(tmp_path: Path) -> None:
    """Forty processes are killed at random moments of a loop of forced commits; each value is a whole one."""
    entry = Entry(tmp_path)
    commit(entry, ["x" * 5000, 0])
    moments = random.Random(0)

    def commits(ready: tp.Any) -> None:
        for number in itertools.count(1):
            owner = owner_of(entry)
            mine = owner.next(ClaimState.RUNNING, token=f"{os.getpid()}")
            entry.publish_claim(mine)
            entry.set_previous_aside(keep_output=False)
            entry.output.mkdir(exist_ok=True)
            (entry.output / "file").touch()
            entry.commit_outcome(
                mine, completed(store_value(entry.path, mine.number, ["x" * 5000, f"{os.getpid()}.{number}"]))
            )
            ready.set()  # from now on: how long one takes depends on the machine

    seen = set()
    for _ in range(40):
        ready = fork.Event()
        child = fork.Process(target=commits, args=(ready,))
        child.start()
        assert ready.wait(30)
        child.join(moments.uniform(0, 0.03))  # not a sleep: the moment of the fault
        crashed = child.exitcode
        child.kill()
        child.join(30)
        assert crashed is None, "the next attempt failed on what the killed one left"
        outcome = entry.outcome() or entry.previous_outcome()
        text, number = entry.load_value(outcome)
        assert len(text) == 5000
        seen.add(number)
    assert len(seen) > 1


@pytest.mark.app
def test_a_process_killed_while_writing_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    """Whatever the moment, a reader sees one of the two contents."""
    contents = {b"a" * 100_000, b"b" * 100_000}

    def writes(ready: tp.Any) -> None:
        ready.set()
        for data in itertools.cycle(sorted(contents)):
            files.write_file(tmp_path / "file", data)

    moments, seen = random.Random(1), set()
    for _ in range(20):
        ready = fork.Event()
        child = fork.Process(target=writes, args=(ready,))
        child.start()
        assert ready.wait(30)
        child.join(moments.uniform(0.001, 0.02))
        child.kill()
        child.join(30)
        if (tmp_path / "file").exists():
            seen.add((tmp_path / "file").read_bytes())
    assert seen and seen <= contents


def test_an_outcome_says_the_same_after_json() -> None:
    outcome = Outcome(Status.FAILED, 3, identity().to_json(), error={"kind": "lost"}, started=1.5, host="h", log="l")
    assert Outcome.from_json(outcome.to_json()) == outcome and json.loads(outcome.to_json())["status"] == "failed"
