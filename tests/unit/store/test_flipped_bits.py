"""One flipped bit in any file that is read back is found, or changes nothing: it never gives another value."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import typing as tp
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import map_models
import numpy as np
import pytest
from apps import App
from stored import store_value

from hydra_exca import checksums, paths
from hydra_exca.clusters import process
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.identity import uid
from hydra_exca.job import checkpoints, payload
from hydra_exca.status import Status
from hydra_exca.store import (
    CacheFolder,
    Claim,
    ClaimState,
    Entry,
    Items,
    ItemWriter,
    Outcome,
    folder_pointers,
    launches,
)
from hydra_exca.store.claims import owning_claim
from hydra_exca.store.items.claims import ItemClaim, ItemClaims
from hydra_exca.sweep import outputs

IDENTITY = uid.make_identity("train.main", "0", {"x": 1})
PROJECT = {"remote": "host/project", "path": "src"}
MISSING = object()
# written before records had checksums
OLD_OUTCOME = (
    b'{"status":"completed","claim":3,"identity":%b,"value":{"format":"json","inline":10.5},"error":null,"started":1.0,'
    b'"ended":2.0,"host":"node","cluster":"local","job":"7","token":"t","log":null,"code":null}'
)
OLD_CLAIM = (
    b'{"number":2,"state":"queued","token":"t","cluster":"local","job":null,"number_of_job":0,"owner":{"pid":1},'
    b'"shared":false,"time":1.5}'
)


def flips(path: Path) -> Iterator[str]:
    """Flips each bit of a file in turn, and puts the file back at the end."""
    data = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for position, byte in enumerate(data):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), position)
                yield f"bit {bit} of byte {position} of {path.name}"
            os.pwrite(file.fileno(), bytes([byte]), position)


def make_entry(folder: Path, value: tp.Any) -> Entry:
    factory_folder = CacheFolder(folder).factory_folder("train.main", "0")
    factory_folder.create(PROJECT)
    entry = factory_folder.open_entry(IDENTITY)
    claim = Claim(1, ClaimState.RUNNING, "token", "local", "7", 0, process.describe_process())
    entry.publish_claim(claim)
    record = store_value(entry.path, claim.number, value)
    outcome = Outcome(Status.COMPLETED, 0, IDENTITY.to_json(), record, host="node", token="token", code="0123")
    assert entry.commit_outcome(claim, outcome)
    return entry


def read_value(folder: Path) -> tp.Any:
    """The value of the identity as a launch reads it; MISSING if it would be computed."""
    factory_folder = CacheFolder(folder).factory_folder("train.main", "0")
    try:
        factory_folder.check_project(PROJECT)
        entry, outcome = factory_folder.lookup(IDENTITY)
        return MISSING if entry is None or outcome is None else entry.load_value(outcome)
    except CacheError:
        return MISSING


@pytest.mark.parametrize("value", [10.5, np.arange(2.0), (1, 2)], ids=["inline", "an array", "a pickle"])
def test_a_flipped_bit_never_gives_another_value(tmp_path: Path, value: tp.Any) -> None:
    entry = make_entry(tmp_path, value)
    assert repr(read_value(tmp_path)) == repr(value)
    for path in [entry.path / paths.OUTCOME, *entry.path.glob("value.*")]:
        for flip in flips(path):
            assert read_value(tmp_path) is MISSING, flip


def test_a_flipped_bit_beside_an_outcome_changes_nothing_or_is_found(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, 10.5)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != paths.OUTCOME):
        for flip in flips(path):
            assert read_value(tmp_path) in (10.5, MISSING), flip
    assert entry.load_value(tp.cast(Outcome, entry.outcome())) == 10.5


def test_a_flipped_bit_in_an_outcome_is_always_found(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, 10.5)
    for flip in flips(entry.path / paths.OUTCOME):
        with pytest.raises(CorruptEntryError):
            pytest.fail(f"{entry.outcome()} after {flip}")


def test_a_flipped_bit_in_a_claim_makes_it_nobodys(tmp_path: Path) -> None:
    """It is never believed to be of another process, job or number."""
    entry = make_entry(tmp_path, 1)
    entry.publish_claim(tp.cast(Claim, entry.current_claim()).next(ClaimState.QUEUED, token="later"))
    last = tp.cast(Claim, entry.current_claim())
    for flip in flips(entry.path / paths.claim_name(last.number)):
        claim = tp.cast(Claim, entry.current_claim())
        assert (claim.number, claim.state) == (last.number, ClaimState.RELEASED), flip


def test_a_flipped_bit_in_the_record_of_a_launch_makes_it_empty(tmp_path: Path) -> None:
    launches.write_record(tmp_path, {"token": "t", "jobs": {"0": "312"}})
    assert launches.read_record(tmp_path) == {"token": "t", "jobs": {"0": "312"}}
    for flip in flips(tmp_path / paths.LAUNCH_RECORD):
        record = launches.read_record(tmp_path)
        assert record.get("jobs", {"0": "312"}) == {"0": "312"} and record.get("token", "t") == "t", flip


def test_a_flipped_bit_in_a_claim_on_items_makes_it_nobodys(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    claim = claims.claim_items(lambda _: ItemClaim("token", {"pid": 1}, (("a", "b"),)))
    assert claims.list_unfinished() == [claim]
    for flip in flips(tmp_path / paths.item_claim_name(1)):
        assert claims.list_unfinished() == [], flip


@pytest.mark.parametrize("value", [10.5, "text", np.arange(2.0), (1, 2)])
def test_a_flipped_bit_never_gives_another_item(tmp_path: Path, value: tp.Any) -> None:
    with ItemWriter(tmp_path, "1-a") as writer:
        writer.add("key", value)
        writer.add("other", [value])
    for path in sorted(tmp_path.iterdir()):
        for flip in flips(path):
            items = Items(tmp_path)
            for key, stored in (("key", value), ("other", [value])):
                try:
                    assert repr(items.get(key)) == repr(stored), flip
                except (KeyError, CacheError):
                    pass


def test_a_job_never_reads_another_program_or_argument(tmp_path: Path) -> None:
    program, argument = pickle.dumps(dict), pickle.dumps({"rate": 10.5})
    header = dataclasses.replace(payload.Payload.of_this_process("local", program, False), search_path=())
    payload.write_payload(tmp_path, header, [payload.Part("entry", {}, argument) for _ in range(2)])
    stored = payload.read_payload(tmp_path)
    for name in (paths.PAYLOAD, paths.ARGUMENTS):
        for flip in flips(tmp_path / name):
            try:
                header = payload.read_payload(tmp_path)
                parts = [payload.read_part(tmp_path, header, position) for position in range(2)]
            except CacheError:
                continue
            assert header == stored and [part.argument for part in parts] == [argument] * 2, flip


def test_what_a_checkpoint_left_is_never_another_call(tmp_path: Path) -> None:
    call = checkpoints.CheckpointCall(dict, (), {"rate": 10.5})
    checkpoints.call_checkpoint(lambda: call, tmp_path, 0)
    for flip in flips(paths.resumed_call(tmp_path, 0)):
        try:
            assert checkpoints.read_resumed_call(tmp_path, 0) == call, flip
        except CacheError:
            continue


def test_a_flipped_bit_never_names_the_outputs_of_another_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = make_entry(tmp_path, 10.5)
    entry.record_output_folder(tmp_path / "sweep" / "0")
    for flip in flips(entry.path / paths.OUTPUT_POINTER):
        caplog.clear()
        assert entry.output_folder() == str(entry.output), flip
        assert "exca-output.txt is not what was written" in caplog.text
    assert entry.output_folder() == str(tmp_path / "sweep" / "0")


def test_a_folder_whose_mark_is_damaged_is_set_aside(tmp_path: Path) -> None:
    """So are the outputs in it, which are another task's."""
    one, other = (make_entry(tmp_path / name, 10.5) for name in ("one", "other"))
    folder = tmp_path / "sweep"
    assert outputs.make_way(folder, one)
    written = (folder / paths.OUTPUT_OWNER).read_bytes()
    for position in range(len(written)):
        for bit in range(8):
            (folder / "result.txt").touch()
            (folder / paths.OUTPUT_OWNER).write_bytes(
                written[:position] + bytes([written[position] ^ 1 << bit]) + written[position + 1 :]
            )
            assert outputs.make_way(folder, other)
            assert os.listdir(folder) == [paths.OUTPUT_OWNER], f"bit {bit} of byte {position}"


def test_a_folder_that_another_task_has_by_now_shows_no_outputs_of_this_one(tmp_path: Path) -> None:
    entry, folder = make_entry(tmp_path, 10.5), tmp_path / "sweep"
    outputs.make_way(folder, entry)
    entry.record_output_folder(folder)
    assert entry.output_folder() == str(folder)
    shutil.rmtree(folder)
    outputs.make_way(folder, Entry(entry.path.with_name("x=2-01234567")))
    assert entry.output_folder() == str(entry.output)


# -- all files of a cache

TASK = """
if cfg.seed == 3:
    raise ValueError("no luck")
return {1: 10.5, 2: ("a", "tuple")}[cfg.seed]
"""
READ_BACK = {  # by the test that flips their bits
    "exca/*/*/outcome.json": test_a_flipped_bit_in_an_outcome_is_always_found,
    "exca/*/*/value.*": test_a_flipped_bit_never_gives_another_value,
    "exca/*/project.json": test_a_flipped_bit_beside_an_outcome_changes_nothing_or_is_found,
    "exca/*/.names/*": test_a_flipped_bit_beside_an_outcome_changes_nothing_or_is_found,
    "exca/*/*/exca-output.txt": test_a_flipped_bit_never_names_the_outputs_of_another_task,
    "sweep/*/.exca-entry": test_a_folder_whose_mark_is_damaged_is_set_aside,
    "exca/launches/*/launch.json": test_a_flipped_bit_in_the_record_of_a_launch_makes_it_empty,
    "exca/launches/*/payload.pkl": test_a_job_never_reads_another_program_or_argument,
    "exca/launches/*/arguments.bin": test_a_job_never_reads_another_program_or_argument,
    "exca/map_models.*/*/items/[!c]*": test_a_flipped_bit_never_gives_another_item,
    "exca/map_models.*/*/items/claims/*": test_a_flipped_bit_in_a_claim_on_items_makes_it_nobodys,
    "exca/code/.*/*": "tests/unit/code/test_snapshots.py",
    "exca/code/[0-9a-f]*/*": "tests/unit/code/test_snapshots.py",
}
FOR_PEOPLE = [  # shown as they are, and nothing is decided by them
    "exca/CACHEDIR.TAG",
    "exca/.gitignore",
    "exca/.claims.lock",  # empty
    "exca/*/*/config.yaml",  # iter_cached compares the identity of what it makes of one
    "exca/*/*/provenance.json",
    "exca/*/*/changes.patch",  # if these sources have changed since the last commit
    "exca/*/*/logs/*",
    "sweep/sweep.json",
    "sweep/multirun.yaml",
    "sweep/*/.hydra/*.yaml",
    "sweep/*/train.log",
]


@pytest.mark.app
def test_all_files_that_are_read_back_have_their_bits_flipped_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes.txt"))
    app = App(tmp_path, TASK)
    options = ["hydra.launcher.link_outputs=false"]
    app.run("seed=1,2,3", *options, cluster="local")
    app.run("seed=1", *options, "hydra.launcher.mode=force")
    assert list(map_models.Listed(infra={"folder": tmp_path / "exca"}).of([1, 2]))
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    files = [name for name in files if name.startswith(("exca/", "sweep/"))]
    kinds = [*READ_BACK, *FOR_PEOPLE]
    assert [name for name in files if not any(fnmatchcase(name, kind) for kind in kinds)] == []
    unused = [kind for kind in kinds if not any(fnmatchcase(name, kind) for name in files)]
    assert unused in ([], ["exca/*/*/changes.patch"])


@pytest.mark.parametrize("length", range(len(checksums.add_checksum(b"/outputs/1"))))
def test_a_file_that_was_cut_is_damaged(length: int, tmp_path: Path) -> None:
    """It has lost its checksum with its end: what is left could be the name of another folder."""
    path = tmp_path / paths.OUTPUT_POINTER
    folder_pointers.write_pointer(path, "/outputs/1")
    os.truncate(path, length)
    with pytest.raises(CorruptEntryError, match=path.name):
        folder_pointers.read_pointer(path)


# -- what was written before there were checksums


@pytest.fixture
def old_entry(tmp_path: Path) -> Entry:
    entry = make_entry(tmp_path, 10.5)
    for path in entry.path.iterdir():
        path.unlink()
    (entry.path / paths.OUTCOME).write_bytes(OLD_OUTCOME % IDENTITY.stored_bytes())
    (entry.path / paths.claim_name(2)).write_bytes(OLD_CLAIM)
    return entry


@pytest.mark.parametrize("read", [Entry.outcome, lambda entry: entry.outcome_for(IDENTITY)])
def test_an_outcome_without_a_checksum_is_still_read(old_entry: Entry, read: Callable[[Entry], Outcome]) -> None:
    outcome = read(old_entry)
    assert (outcome.claim, outcome.job, old_entry.load_value(outcome)) == (3, "7", 10.5)
    assert read_value(old_entry.path.parents[1]) == 10.5


def test_a_claim_without_a_checksum_is_still_read(old_entry: Entry) -> None:
    claim = Claim(2, ClaimState.QUEUED, "t", "local", None, 0, {"pid": 1}, time=1.5)
    assert owning_claim(old_entry.path) == claim


@pytest.mark.parametrize("checksum", ["mine", "0123456789abcdef"])
def test_a_key_of_a_user_that_is_named_checksum_is_not_the_checksum(checksum: str) -> None:
    fields = {"identity": {"fields": {"seed": 1, "checksum": checksum}}}
    old = json.dumps(fields, separators=(",", ":")).encode()
    assert checksums.record_text(old) == old
    assert checksums.parse_record(old) == checksums.parse_record(checksums.dump_record(fields)) == fields
    source = b"text\nchecksum " + checksum.encode() + b"\nmore"
    assert checksums.remove_checksum(checksums.add_checksum(source)) == source
