"""One call of a map: what it lacks is claimed and computed in chunks, or waited for where others compute it."""

from __future__ import annotations

import logging
import os
import time
import typing as tp
from collections.abc import Iterator
from pathlib import Path

from hydra_exca import checksums, files, paths
from hydra_exca.clusters import is_this_process, process
from hydra_exca.clusters.slots import held_slots
from hydra_exca.errors import CacheError, DefaultsChangedError
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.job.enclosing import enclosing_tasks
from hydra_exca.launch import cancellation
from hydra_exca.launch.lookup import Lookup, LookupResult, is_behind_this_job
from hydra_exca.launch.waits import RecordedWaits, WaitedTask, wait_error
from hydra_exca.polling import LONGEST_PAUSE_S, Pause
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Entry, FactoryFolder, describe_owner, own_calls
from hydra_exca.store.items.claims import ItemClaim, ItemClaims
from hydra_exca.store.items.reader import Items

from .map_compute import outer_claims

log = logging.getLogger("exca.map")
_VISIBLE_S = 3.0
_ASK_S = 2.0  # how often it is asked whether the jobs that compute what is waited for are still there


HeldKeys = dict[str, WaitedTask | None]
"""Items that others compute, each with the task in which they do; None if there is none, or none around this call."""


class JobsFolder(CacheFolder):
    """A cache folder in which the entries of jobs are those of one map's jobs."""

    def __init__(self, cache: CacheFolder, path: Path) -> None:
        super().__init__(cache.path, cache.trust_users)
        self._jobs = path

    def factory_folder(self, factory: str, version: str) -> FactoryFolder:
        return FactoryFolder(self._jobs, self.trust_users)


class MapEntry:
    """The entry of one map: its items and the claims on them."""

    def __init__(self, cache: CacheFolder, identity: Identity, entry: Entry) -> None:
        self.identity = identity
        self.entry = entry
        self.cache = cache.path
        self.folder = entry.path / paths.ITEMS
        self.items = Items(self.folder, cache.trust_users)
        self.claims = ItemClaims(self.folder / paths.ITEM_CLAIMS)
        self.jobs = JobsFolder(cache, self.folder / paths.ITEM_JOBS)
        self.recorded_by: int | None = None  # the process that is recorded in the entry as computing items
        self._check_defaults()

    def create(self, describe: tp.Callable[[], tuple[str, str]]) -> None:
        """Makes the folders, and stores the identity of the items."""
        self.entry.create()  # somebody may have removed all since it was opened
        for folder in (self.folder, self.claims.folder):
            files.make_folder(folder)
            files.clear_leftovers(folder)
        if self.entry.identity_of_items() is not None:
            return
        path = self.folder / paths.IDENTITY
        if os.path.lexists(path):
            log.warning("exca: %s is damaged; it is set aside as %s", path, files.move_aside(path))
        if files.publish_file(path, checksums.dump_record(self.identity.to_json()), durable=True):
            self.entry.write_description(describe)

    def missing_keys(self, keys: tp.Iterable[str]) -> list[str]:
        """The keys that are not stored by now."""
        self.items.refresh()
        return [key for key in keys if key not in self.items]

    def job_identity(self, claim: ItemClaim, chunk: int) -> Identity:
        """The identity of the job for one chunk of a claim."""
        name = f"{claim.token}.{claim.number}.{chunk}"
        return uid.make_identity(
            self.identity.factory, self.identity.version, {"chunk": name}, label=f"{claim.number}.{chunk}"
        )

    def held_keys(self, claim: ItemClaim, is_over: bool = False) -> frozenset[str]:
        """The keys that somebody is still to compute under a claim. ``is_over``: a call of this thread, which ends."""
        if own_calls.is_running(claim.token) and not is_over:
            return claim.keys
        # this process's own, left behind by a call that is over, is nobody's
        launcher = not is_this_process(claim.owner) and process.is_alive(claim.owner) is not False
        if claim.cluster is None:
            return claim.keys if launcher else frozenset()
        return frozenset(
            key
            for chunk, result in self._look_up_jobs(claim)
            if result.status is Status.RUNNING or (launcher and _is_untouched(result))
            for key in chunk
        )

    def keys_behind_this_job(self, claim: ItemClaim) -> frozenset[str]:
        """The keys of a claim whose jobs wait for this machine, of which this process, being in a job, holds a part."""
        if claim.cluster is None or held_slots() is None:
            return frozenset()
        chunks = [chunk for chunk, result in self._look_up_jobs(claim) if is_behind_this_job(result.claim)]
        return frozenset(key for chunk in chunks for key in chunk)

    def computing_tasks(self, claim: ItemClaim) -> HeldKeys:
        """The task that computes each item of a claim, by its key: a job, or the task in which the call is."""
        outer = None if claim.task is None else WaitedTask(Path(claim.task[0]), claim.task[1])
        tasks: HeldKeys = dict.fromkeys(claim.keys, outer)
        for chunk, job in () if claim.cluster is None else self._look_up_jobs(claim):
            if job.entry is not None and job.claim is not None:
                tasks.update(dict.fromkeys(chunk, WaitedTask(job.entry.path, job.identity.key)))
        return tasks

    def cancel_vanished_jobs(self, claim: ItemClaim) -> None:
        """Cancels the jobs of a claim that Slurm does not list, before others compute their items."""
        if claim.cluster is not None:
            results = (result for _, result in self._look_up_jobs(claim))
            owned = [(r.entry, r.claim, r.ended) for r in results if r.entry is not None and r.claim is not None]
            cancellation.cancel_vanished_jobs(Lookup(self.jobs), owned)

    def _look_up_jobs(self, claim: ItemClaim) -> Iterator[tuple[tuple[str, ...], LookupResult]]:
        """The chunks of a claim, with the results of the lookup of their jobs."""
        identities = [self.job_identity(claim, index) for index in range(len(claim.chunks))]
        return zip(claim.chunks, Lookup(self.jobs).look_up(identities, lambda _: Mode.READ_ONLY), strict=True)

    def _check_defaults(self) -> None:
        stored = self.entry.identity_of_items()
        changed = [] if stored is None else uid.changed_defaults(stored, self.identity)
        if changed:
            raise DefaultsChangedError(
                f"the items in {self.entry.path} were computed under other defaults: {'; '.join(changed)}. They would "
                "silently mean something else: bump the version, or put the defaults back"
            )


def _is_untouched(result: LookupResult) -> bool:
    """Whether the launch that wants this job has not come to it yet."""
    return result.outcome is None and result.claim is None and result.corrupt is None


class MapCall:
    """One call of a map: claims and computes the items it lacks, or waits for others to compute them.

    ``divide`` packs keys into chunks; ``compute(claim, chunks of pairs, fresh)`` computes and stores what was claimed,
    if ``fresh`` whatever is stored already; ``check_allowed(keys)`` raises if these must not be computed. With ``redo``
    what is stored does not count. ``done`` has the keys that were computed here, also after an error.
    """

    def __init__(
        self,
        map_entry: MapEntry,
        wanted: dict[str, tp.Any],
        *,
        cluster: str | None,
        redo: bool,
        divide: tp.Callable[[list[str]], list[list[str]]],
        check_allowed: tp.Callable[[list[str]], None],
        compute: tp.Callable[[ItemClaim, list[list[tuple[str, tp.Any]]], bool], None],
    ) -> None:
        self._map_entry = map_entry
        self._left = wanted
        self._cluster = cluster
        self._redo = redo
        self._divide = divide
        self._check_allowed = check_allowed
        self._compute = compute
        self._again = False
        self.done: set[str] = set()
        self._token = files.random_token()
        self._held_cache: dict[tuple[str, int], tuple[float, HeldKeys]] = {}
        tasks = enclosing_tasks()
        self._task = (tasks[-1].entry, tasks[-1].key) if tasks else None
        self._held: HeldKeys = {}

    def run(self) -> None:
        """Returns when all items are there; raises what computing one here raised."""
        own_calls.begin_call(self._token)
        try:
            while self._left:
                claim = self._map_entry.claims.claim_items(self._next_claim) or self._wait_for_claim()
                if claim is not None:
                    self._compute_claimed(claim)
        finally:
            own_calls.end_call(self._token)

    def _wait_for_claim(self) -> ItemClaim | None:
        """Waits until this call has claimed items that are left, or until none are."""
        pause, claim = Pause(), None
        with RecordedWaits() as waits:
            while self._left and claim is None:
                if waits.replace({task for key in self._left if (task := self._held.get(key)) is not None}):
                    raise wait_error(f"an item of {self._map_entry.identity.uid()}")
                pause.sleep()
                claim = self._map_entry.claims.claim_items(self._next_claim)
        return claim

    def _next_claim(self, known: list[ItemClaim]) -> ItemClaim | None:
        """The claim to publish beside the known ones; those were read first, so what they stored by then is seen."""
        self._held = {}
        for claim in known:
            self._held.update(self._held_by_others(claim))
        if not self._redo:
            missing_keys = set(self._map_entry.missing_keys(self._left))
            self._left = {key: item for key, item in self._left.items() if key in missing_keys}
        free = [key for key in self._left if key not in self._held]
        if not free:
            return None
        self._check_allowed(free)
        chunks = tuple(map(tuple, self._divide(free)))
        owner = describe_owner(self._map_entry.claims.folder)
        return ItemClaim(self._token, owner, chunks, self._cluster, task=self._task)

    def _held_by_others(self, claim: ItemClaim) -> HeldKeys:
        if claim.token == self._token or claim.token in outer_claims.get():  # a turn that is over; who waits for this
            return {}
        then, held = self._held_cache.get((claim.token, claim.number), (0.0, {}))
        now = time.monotonic()
        if claim.cluster is None or now - then > _ASK_S:
            keys = self._map_entry.held_keys(claim)
            is_finished = not keys
            if is_finished:
                self._map_entry.cancel_vanished_jobs(claim)
            keys -= self._map_entry.keys_behind_this_job(claim)
            tasks = self._map_entry.computing_tasks(claim) if self._task is not None and keys else {}
            held = {key: tasks.get(key) for key in keys}
            self._held_cache[claim.token, claim.number] = now, held
            if is_finished:
                self._map_entry.claims.finish_claim(claim)
        return held

    def _compute_claimed(self, claim: ItemClaim) -> None:
        outer = outer_claims.set(outer_claims.get() | {self._token})
        try:
            chunks = [[(key, self._left[key]) for key in chunk] for chunk in claim.chunks]
            self._compute(claim, chunks, self._redo or self._again)
        finally:
            outer_claims.reset(outer)
            self._finish_claim(claim)
            self._update_done(claim)
        self._check_stored(claim)
        self._left = {key: item for key, item in self._left.items() if key not in self.done}

    def _update_done(self, claim: ItemClaim) -> None:
        items = self._map_entry.items
        items.refresh()
        least = claim.number if self._redo else 0
        self.done.update(key for key in claim.keys if key in items and items.writer_number(key) >= least)

    def _check_stored(self, claim: ItemClaim) -> None:
        """Waits until what was stored is visible, which takes a moment on a network; else it is computed once more."""
        deadline = time.monotonic() + _VISIBLE_S
        while not claim.keys <= self.done and time.monotonic() < deadline:
            time.sleep(LONGEST_PAUSE_S)
            self._update_done(claim)
        missing = claim.keys - self.done
        if missing and self._again:
            raise CacheError(
                f"{len(missing)} items were computed and stored in {self._map_entry.folder}, but are not found there: "
                "is something else writing to these files?"
            )
        self._again = bool(missing)

    def _finish_claim(self, claim: ItemClaim) -> None:
        """Finishes the claim, unless jobs go on without this process."""

        def finish() -> None:
            if not self._map_entry.held_keys(claim, is_over=True):
                self._map_entry.claims.finish_claim(claim)

        try:
            finish()
        except (OSError, CacheError) as error:  # an error under way says more
            log.warning("the claim on items in %s is released as soon as possible: %s", self._map_entry.folder, error)
            own_calls.abandon_claim(claim.token, claim.number, finish)
        except BaseException:
            own_calls.abandon_claim(claim.token, claim.number, finish)
            raise
