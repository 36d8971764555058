"""Locks on claims: on one kernel an owner that is not in sight is dead if its lock is free, and only then."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import typing as tp
from pathlib import Path

import pytest

from hydra_exca import paths
from hydra_exca.clusters import process, process_lock
from hydra_exca.store import Claim, ClaimState, Entry, claims
from hydra_exca.store.items.claims import ItemClaim, ItemClaims

fork = multiprocessing.get_context("fork")


@pytest.fixture
def entry(tmp_path: Path) -> tp.Iterator[Entry]:
    entry = Entry(tmp_path / "cache" / "app.train,0" / "x=1")
    entry.create()
    yield entry
    process_lock._held.pop(str(paths.claims_lock(entry.path)), None)


def publish(entry: Entry) -> None:
    claim = Claim(1, ClaimState.RUNNING, "launch", "local", "1", 0, claims.describe_owner(entry.path))
    assert entry.publish_claim(claim)


def owner_of(entry: Entry) -> dict[str, tp.Any]:
    claim = entry.current_claim()
    assert claim is not None
    return claim.owner


@contextlib.contextmanager
def other_process(work: tp.Callable[[], tp.Any]) -> tp.Iterator[tp.Any]:
    """A process that has done some work and then waits."""
    ready = fork.Event()

    def body() -> None:
        work()
        ready.set()
        signal.pause()

    child = fork.Process(target=body)
    child.start()
    assert ready.wait(30)
    try:
        yield child
    finally:
        child.kill()
        child.join()


@pytest.mark.app
@pytest.mark.parametrize(
    "change",
    [
        {"host": "another"},
        {"pid_namespace": "another"},
        {"machine": "another"},
        {"pid": os.getpid()},
        {"pid": 1, "host": "another"},
    ],
    ids=["host", "namespace", "machine", "own pid", "other pid"],
)
def test_an_owner_whose_lock_is_free_is_dead_whatever_else_the_claim_says(
    entry: Entry, change: dict[str, tp.Any]
) -> None:
    with other_process(lambda: publish(entry)):
        pass
    assert process.is_alive({**owner_of(entry), **change}) is False


@pytest.mark.app
@pytest.mark.parametrize("change", [{"host": "another"}, {"pid_namespace": "another"}])
def test_an_owner_in_another_container_that_holds_its_lock_is_not_dead(entry: Entry, change: dict[str, str]) -> None:
    with other_process(lambda: publish(entry)):
        assert process.is_alive(owner_of(entry)) is True
        assert process.is_alive({**owner_of(entry), **change}) is None


@pytest.mark.app
def test_an_owner_in_sight_that_has_closed_all_its_files_is_alive_and_can_fork(entry: Entry) -> None:
    statuses = fork.SimpleQueue()

    def publish_and_close() -> None:
        publish(entry)
        os.close(process_lock._held[owner_of(entry)["lock"]["file"]][0])
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            claims.describe_owner(entry.path)
            os._exit(0)
        statuses.put(os.waitpid(pid, 0)[1])

    with other_process(publish_and_close):
        assert statuses.get() == 0
        assert process_lock.is_free(owner_of(entry)["lock"]) and process.is_alive(owner_of(entry)) is True


@pytest.mark.parametrize("byte", [-1, 1 << 70])
def test_a_byte_of_no_file_says_nothing(entry: Entry, byte: int) -> None:
    publish(entry)
    assert not process_lock.is_free({**owner_of(entry)["lock"], "byte": byte})


@pytest.mark.app
@pytest.mark.parametrize("change", [{"boot": "another"}, {"lock": None}])
def test_the_lock_counts_on_the_same_kernel_only(entry: Entry, change: dict[str, tp.Any]) -> None:
    with other_process(lambda: publish(entry)):
        pass
    assert process.is_alive({**owner_of(entry), "host": "another", **change}) is None


@pytest.mark.app
@pytest.mark.parametrize("replace", [os.unlink, lambda path: (os.unlink(path), Path(path).touch())])
def test_a_lock_file_that_was_removed_or_replaced_says_nothing(entry: Entry, replace: tp.Callable[[str], None]) -> None:
    with other_process(lambda: publish(entry)):
        owner = owner_of(entry)
        kept = os.open(owner["lock"]["file"], os.O_RDONLY)  # so that its inode is not used again
        replace(owner["lock"]["file"])
    assert process.is_alive({**owner, "host": "another"}) is None
    os.close(kept)


@pytest.mark.app
def test_a_process_that_copies_the_cache_keeps_its_lock(entry: Entry) -> None:
    def publish_and_copy() -> None:
        publish(entry)
        shutil.copytree(entry.path.parents[1], entry.path.parents[2] / "copy")

    with other_process(publish_and_copy):
        assert not process_lock.is_free(owner_of(entry)["lock"])


@pytest.mark.app
def test_a_forked_child_that_outlives_the_owner_does_not_keep_its_lock(entry: Entry) -> None:
    grandchild = fork.SimpleQueue()

    def publish_and_fork() -> None:
        publish(entry)
        pid = os.fork()
        if pid == 0:
            signal.pause()
        grandchild.put(pid)

    with other_process(publish_and_fork):
        pid = grandchild.get()
    assert process.is_alive(owner_of(entry)) is False
    os.kill(pid, signal.SIGKILL)


@pytest.mark.app
def test_a_forked_child_holds_a_lock_of_its_own(entry: Entry) -> None:
    publish(entry)
    own = owner_of(entry)["lock"]
    with other_process(lambda: entry.publish_claim(own_next(entry))):
        pass
    assert owner_of(entry)["lock"]["byte"] != own["byte"]
    assert process_lock.is_free(owner_of(entry)["lock"]) and not process_lock.is_free(own)


def own_next(entry: Entry) -> Claim:
    claim = entry.current_claim()
    assert claim is not None
    return claim.next(ClaimState.RUNNING, owner=claims.describe_owner(entry.path))


def test_any_number_of_claims_takes_one_descriptor(entry: Entry) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        other = Entry(entry.path.parent / f"x={number}")
        other.create()
        publish(other)
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_a_moved_cache_and_its_lock_file_are_found_where_the_claim_is(entry: Entry) -> None:
    """Containers may have the same folder in different places."""
    publish(entry)
    moved = entry.path.parents[2] / "moved"
    entry.path.parents[1].rename(moved)
    lock = owner_of(Entry(moved / entry.path.parent.name / entry.path.name))["lock"]
    assert lock["file"] == str(moved / paths.CLAIMS_LOCK) and not process_lock.is_free(lock)


def test_claims_of_jobs_and_items_of_a_map_share_the_lock_file_of_the_cache(entry: Entry) -> None:
    items = entry.path / paths.ITEMS
    job, of_items = Entry(items / paths.ITEM_JOBS / "1.0"), ItemClaims(items / paths.ITEM_CLAIMS)
    items.mkdir()
    (items / paths.ITEM_JOBS).mkdir()
    of_items.folder.mkdir()
    job.create()
    publish(job)
    of_items.claim_items(lambda _: ItemClaim("launch", claims.describe_owner(of_items.folder), (("key",),)))
    lock = str(entry.path.parents[1] / paths.CLAIMS_LOCK)
    assert [owner_of(job)["lock"]["file"], of_items.list_unfinished()[0].owner["lock"]["file"]] == [lock, lock]


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EINVAL])
def test_on_a_file_system_without_locks_a_claim_names_none(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: tp.Any) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(process_lock, "_control", refuse)
    publish(entry)
    assert "lock" not in owner_of(entry) and process.is_alive(owner_of(entry)) is True


def test_a_lock_that_others_do_not_see_is_not_trusted(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS without a lock daemon, or in a sandbox that accepts any lock."""
    monkeypatch.setattr(process_lock, "_control", lambda descriptor, command, kind, byte: 2)  # F_UNLCK
    publish(entry)
    assert "lock" not in owner_of(entry)
