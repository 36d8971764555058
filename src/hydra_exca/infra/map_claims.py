"""One call of a map: what it lacks is claimed and computed in chunks, or waited for where others compute it."""

from __future__ import annotations

import json
import logging
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters import describe_process, process
from hydra_exca.errors import CacheError, DefaultsChangedError
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.launch.lookup import Lookup, LookupResult
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Entry, FactoryFolder, files
from hydra_exca.store.items.claims import ItemClaim, ItemClaims
from hydra_exca.store.items.reader import Items

from .map_compute import inside

log = logging.getLogger("exca.map")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25
_SEEN_S = 3.0
_ASK_S = 2.0  # how often it is asked whether the jobs that compute what is waited for are still there
_active: set[tuple[int, str]] = set()  # the claims that calls in this process hold just now


class JobsFolder(CacheFolder):
    """A cache folder in which the entries of jobs are those of one map's jobs."""

    def __init__(self, cache: CacheFolder, path: Path) -> None:
        super().__init__(cache.path, cache.trust_users)
        self._jobs = path

    def factory_folder(self, factory: str, version: str) -> FactoryFolder:
        return FactoryFolder(self._jobs, self.trust_users)


class MapEntry:
    """Where the items of one map are, and the claims on them."""

    def __init__(self, cache: CacheFolder, identity: Identity, entry: Entry) -> None:
        self.identity = identity
        self.entry = entry
        self.folder = entry.path / paths.ITEMS
        self.items = Items(self.folder, cache.trust_users)
        self.claims = ItemClaims(self.folder / paths.ITEM_CLAIMS)
        self.jobs = JobsFolder(cache, self.folder / paths.ITEM_JOBS)
        self._check_defaults()

    def create(self, describe: tp.Callable[[], tuple[str, str]]) -> None:
        """Makes the folders, and notes what the items are the results of."""
        self.claims.folder.mkdir(parents=True, exist_ok=True)
        if self.stored_identity(self.entry) is None and files.publish_file(
            self.folder / paths.IDENTITY, files.dump_json(self.identity.to_json()), durable=True
        ):
            self.entry.write_description(*describe())

    def lacking(self, keys: tp.Iterable[str]) -> list[str]:
        """Those that are not stored by now."""
        self.items.refresh()
        return [key for key in keys if key not in self.items]

    def job_identity(self, claim: ItemClaim, chunk: int) -> Identity:
        """What the job for one chunk of a claim goes by."""
        name = f"{claim.token}.{claim.number}.{chunk}"
        return uid.make_identity(
            self.identity.factory, self.identity.version, {"chunk": name}, label=f"{claim.number}.{chunk}"
        )

    def held(self, claim: ItemClaim) -> frozenset[str]:
        """The keys that somebody is still to compute under a claim."""
        if (os.getpid(), claim.token) in _active:
            return claim.keys
        # this process's own, left behind by a call that is over, is nobody's
        launcher = claim.owner != describe_process() and process.is_alive(claim.owner) is not False
        if claim.cluster is None:
            return claim.keys if launcher else frozenset()
        identities = [self.job_identity(claim, index) for index in range(len(claim.chunks))]
        results = Lookup(self.jobs).look_up(identities, lambda _: Mode.READ_ONLY)
        return frozenset(
            key
            for chunk, result in zip(claim.chunks, results, strict=True)
            if result.status is Status.RUNNING or (launcher and _is_untouched(result))
            for key in chunk
        )

    @staticmethod
    def stored_identity(entry: Entry) -> dict[str, tp.Any] | None:
        """What the items of an entry are the results of, None if it has none."""
        try:
            stored: dict[str, tp.Any] = json.loads((entry.path / paths.ITEMS / paths.IDENTITY).read_bytes())
            return stored
        except (OSError, ValueError):
            return None

    def _check_defaults(self) -> None:
        stored = self.stored_identity(self.entry)
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
    """One call's way to its items.

    ``divide`` packs keys into chunks; ``compute(claim, chunks of pairs, fresh)`` computes and stores what was claimed,
    if ``fresh`` whatever is stored already; ``agree(keys)`` raises where nothing may be computed. With ``redo`` what is
    stored does not count. ``done`` are the keys that were computed here, also when an error ended it.
    """

    def __init__(
        self,
        place: MapEntry,
        wanted: dict[str, tp.Any],
        *,
        cluster: str | None,
        redo: bool,
        divide: tp.Callable[[list[str]], list[list[str]]],
        agree: tp.Callable[[list[str]], None],
        compute: tp.Callable[[ItemClaim, list[list[tuple[str, tp.Any]]], bool], None],
    ) -> None:
        self._place = place
        self._left = wanted
        self._cluster = cluster
        self._redo = redo
        self._divide = divide
        self._agree = agree
        self._compute = compute
        self._again = False
        self.done: set[str] = set()
        self._token = files.random_token()
        self._asked: dict[tuple[str, int], tuple[float, frozenset[str]]] = {}

    def run(self) -> None:
        """Returns when all items are there; raises what computing one here raised."""
        pause = _FIRST_PAUSE_S
        _active.add((os.getpid(), self._token))
        try:
            while self._left:
                claim = self._place.claims.claim_items(self._wish)
                if claim is not None:
                    self._work(claim)
                    pause = _FIRST_PAUSE_S
                elif self._left:
                    time.sleep(pause)
                    pause = min(_LONGEST_PAUSE_S, 1.5 * pause)
        finally:
            _active.discard((os.getpid(), self._token))

    def _wish(self, known: list[ItemClaim]) -> ItemClaim | None:
        """What to claim beside the known claims. These were read first: what they had stored by then is seen."""
        held: set[str] = set()
        for claim in known:
            held |= self._held(claim)
        if not self._redo:
            lacking = set(self._place.lacking(self._left))
            self._left = {key: item for key, item in self._left.items() if key in lacking}
        free = [key for key in self._left if key not in held]
        if not free:
            return None
        self._agree(free)
        chunks = tuple(map(tuple, self._divide(free)))
        return ItemClaim(self._token, describe_process(), chunks, self._cluster)

    def _held(self, claim: ItemClaim) -> frozenset[str]:
        if claim.token == self._token or claim.token in inside.get():  # a turn that is over; who waits for this
            return frozenset()
        then, keys = self._asked.get((claim.token, claim.number), (0.0, frozenset()))
        now = time.monotonic()
        if claim.cluster is None or now - then > _ASK_S:
            keys = self._place.held(claim)
            self._asked[claim.token, claim.number] = now, keys
            if not keys:
                self._place.claims.finish_claim(claim)
        return keys

    def _work(self, claim: ItemClaim) -> None:
        outer = inside.set(inside.get() | {self._token})
        try:
            chunks = [[(key, self._left[key]) for key in chunk] for chunk in claim.chunks]
            self._compute(claim, chunks, self._redo or self._again)
        finally:
            inside.reset(outer)
            self._let_go(claim)
            self._note_done(claim)
        self._check_found(claim)
        self._left = {key: item for key, item in self._left.items() if key not in self.done}

    def _note_done(self, claim: ItemClaim) -> None:
        items = self._place.items
        items.refresh()
        least = claim.number if self._redo else 0
        self.done.update(key for key in claim.keys if key in items and items.writer_number(key) >= least)

    def _check_found(self, claim: ItemClaim) -> None:
        """What was stored must be there; over a network it may take a moment. Then once more, in a file of its own."""
        deadline = time.monotonic() + _SEEN_S
        while not claim.keys <= self.done and time.monotonic() < deadline:
            time.sleep(_LONGEST_PAUSE_S)
            self._note_done(claim)
        missing = claim.keys - self.done
        if missing and self._again:
            raise CacheError(
                f"{len(missing)} items were computed and stored in {self._place.folder}, and are not found there: is "
                "something else writing to these files?"
            )
        self._again = bool(missing)

    def _let_go(self, claim: ItemClaim) -> None:
        """Finishes the claim, unless jobs go on without this process."""
        _active.discard((os.getpid(), self._token))
        try:
            if not self._place.held(claim):
                self._place.claims.finish_claim(claim)
        except OSError as error:  # what this process leaves behind is nobody's; an error under way says more
            log.warning("the claim on items in %s stays behind: %s", self._place.folder, error)
        _active.add((os.getpid(), self._token))
