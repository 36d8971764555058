"""MapInfra: a method over items, with one stored result for each item."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import logging
import os
import pickle
import sys
import typing as tp

import pydantic

from hydra_exca import clusters, files
from hydra_exca.clusters.devices import usable_cores
from hydra_exca.code import active
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError, TaskFailedError
from hydra_exca.identity.uid import Identity
from hydra_exca.job import payload
from hydra_exca.job.enclosing import use_result
from hydra_exca.launch.code_changes import changed_text
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.provenance import task_record
from hydra_exca.status import Mode
from hydra_exca.store import Entry
from hydra_exca.store.formats import registry
from hydra_exca.store.items.claims import ItemClaim
from hydra_exca.text import count_noun

from . import binding, launch_settings, map_compute, pools
from .base import BaseInfra, private
from .binding import Exclusions
from .cached_items import CachedItems
from .map_call import MapCall, MapEntry
from .map_compute import AppliedMapMethod, Pairs
from .progress import ProgressBar

log = logging.getLogger("exca.map")
Method = tp.TypeVar("Method", bound=tp.Callable[..., tp.Any])
_POOLS = ("threadpool", "processpool")
_CHUNKS_PER_WORKER = 3  # of a pool, so that a worker that is done early can take another chunk
_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None))
_said: set[tuple[str | None, ...]] = set()  # warnings that this process has given


class MapInfra(BaseInfra):
    """Gives a method that yields one result for each item a cache of these results and a cluster.

        class Features(pydantic.BaseModel):
            scale: int = 2
            infra: MapInfra = MapInfra(version="1")

            @infra.apply(item_uid=str)
            def load(self, paths: list[str]) -> Iterator[np.ndarray]:
                for path in paths:
                    yield read_wav(path) * self.scale

        Features(infra={"folder": "cache", "cluster": "slurm"}).load(["a.wav", "b.wav"])

    What is missing is computed in at most ``max_jobs`` jobs of at least ``min_samples_per_job`` items each; in a pool
    (``threadpool``, ``processpool``) by as many workers as there are cores, and no more than ``max_jobs``.
    ``keep_in_ram`` keeps results in the object too. ``forbid_single_item_computation``: asking for one item that
    is not stored is an error. Mode ``force`` recomputes each item, once for one object; ``read-only`` nothing.
    """

    _exca_pools: tp.ClassVar[tuple[str, ...]] = _POOLS
    _exca_pickled: tp.ClassVar[tuple[str, ...]] = ("_computed",)

    cluster: tp.Literal["debug", "local", "slurm", "auto", "threadpool", "processpool"] | None = None  # type: ignore[assignment]
    mode: tp.Literal["cached", "force", "read-only"] = "cached"
    # keep the results in the object, too
    keep_in_ram: bool = True
    # the most jobs that compute what is missing; None: no limit
    max_jobs: pydantic.PositiveInt | None = 128
    # the fewest items that a job computes
    min_samples_per_job: pydantic.PositiveInt = 1
    # raise if only one item is missing, instead of computing it
    forbid_single_item_computation: bool = False

    _computed: dict[str, set[str]] = pydantic.PrivateAttr(default_factory=dict)
    _kept: dict[str, dict[str, tp.Any]] = pydantic.PrivateAttr(default_factory=dict)
    _map_entries: dict[str, MapEntry] = pydantic.PrivateAttr(default_factory=dict)

    def apply(
        self,
        *misplaced: tp.Any,
        item_uid: tp.Callable[[tp.Any], str] | None = None,
        item_uid_max_length: int | None = 256,
        exclude_from_cache_uid: Exclusions = (),
        cache_type: str | None = None,
    ) -> tp.Callable[[Method], Method]:
        """Decorates a method that takes items and yields one result for each, in their order.

        ``item_uid`` names an item: items of the same name have the same result. Longer names than
        ``item_uid_max_length`` are cut and end in a digest. ``exclude_from_cache_uid`` is that of TaskInfra.
        ``cache_type`` names the format that results are stored in, instead of one by their type (docs/formats.md).
        """
        if misplaced or item_uid is None:
            raise TypeError("a MapInfra is applied with a function that names an item: @infra.apply(item_uid=str)")
        return functools.partial(
            self._decorate,
            exclude_from_cache_uid=exclude_from_cache_uid,
            item_uid=item_uid,
            item_uid_max_length=item_uid_max_length,
            cache_type=cache_type,
        )

    def _decorate(self, method: tp.Any, **how: tp.Any) -> tp.Any:
        if self._applied is not None:
            raise RuntimeError(f"this infra is applied to {self._applied.name} already")
        binding.check_signature(method, 2, "self and the items")
        self._applied = applied = AppliedMapMethod(method, **how)
        signature = inspect.signature(method)

        @functools.wraps(method)
        def mapped(obj: tp.Any, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            if len(args) == 1 and not kwargs:  # nearly always, and binding takes as long as all else
                items = args[0]
            else:
                given = signature.bind(obj, *args, **kwargs)
                given.apply_defaults()
                items = given.args[1]
            infra = getattr(obj, private(self)["_name"], None)
            if isinstance(infra, MapInfra) and private(infra)["_owner"] is None:
                binding.attach_infra(obj)  # an object that was made without validation
            if not isinstance(infra, MapInfra) or private(infra)["_applied"] is not applied:
                return method(obj, items)  # a subclass has given that infra to another method
            return infra._call_for_user(list(items))

        return mapped

    def _map(self) -> tuple[pydantic.BaseModel, AppliedMapMethod]:
        owner, applied = self._bound()
        return owner, tp.cast(AppliedMapMethod, applied)

    @property
    def cache_dict(self) -> CachedItems:
        """The stored results of this object's items, by the items' names, as a dictionary; they can be removed."""
        stored = None if self.folder is None else lambda: self._find_map_entry(self.identity())
        return CachedItems(self.uid(), stored, self._kept_items)

    # one call

    def _call_for_user(self, items: list[tp.Any]) -> tp.Iterator[tp.Any]:
        try:
            return self._call(items)
        except TaskFailedError as error:  # its message has the frames of the method
            raise map_compute.with_index(error, list(map(self._map()[1].key, items))) from None

    def _call(self, items: list[tp.Any]) -> tp.Iterator[tp.Any]:
        """Computes the missing items before it returns; the iterator it returns only reads."""
        owner, applied = self._map()
        keys = list(map(applied.key, items))
        identity, state, redo = self.identity(), private(self), self.mode == "force"
        cache = self._key(identity) + (map_compute.cell_digest(owner) or "")
        kept = state["_kept"].setdefault(cache, {}) if self.keep_in_ram else {}
        if not redo and all(map(kept.__contains__, keys)):  # kept for this very identity and code: no look at the disk
            return map(_independent_copy, [kept[key] for key in keys])
        wanted = dict(zip(reversed(keys), reversed(items), strict=True))  # of a name the first item
        computed = state["_computed"].setdefault(cache, set())
        done = self._done(kept, computed)
        needed = {key: wanted[key] for key in dict.fromkeys(keys) if key not in done}
        if self.folder is None:
            found = {**kept, **self._compute_in_ram(needed, len(wanted), kept, computed)}
            return map(_independent_copy, [found[key] for key in keys])
        for key in needed:
            kept.pop(key, None)
        map_entry = self._map_entry(identity)
        self._compute_missing(map_entry, needed, len(wanted), redo, computed)
        return self._read(map_entry, keys, wanted, kept)

    def _done(self, kept: dict[str, tp.Any], computed: set[str]) -> tp.Collection[str]:
        """The keys that are not to be computed: in mode force, those that this object has computed already."""
        if self.mode != "force":
            return kept.keys()
        return computed if self.folder is not None else computed & kept.keys()

    def _read(
        self, map_entry: MapEntry, keys: tp.Sequence[str], wanted: dict[str, tp.Any], kept: dict[str, tp.Any]
    ) -> tp.Iterator[tp.Any]:
        for key in keys:
            if key in kept:
                yield _independent_copy(kept[key])
                continue
            value = self._stored(map_entry, key, wanted[key])
            if self.keep_in_ram:
                kept[key] = value
                value = _independent_copy(value)
            yield value

    def _stored(self, map_entry: MapEntry, key: str, item: tp.Any) -> tp.Any:
        """The stored result of an item; a missing or damaged one is recomputed."""
        try:
            return map_entry.items.get(key)
        except (KeyError, CorruptEntryError) as error:
            map_entry.items.discard(key)
            if map_entry.missing_keys([key]):
                if self.mode == "read-only" or self.identity() != map_entry.identity:
                    why = "mode=read-only" if self.mode == "read-only" else "the object was changed since it was asked"
                    problem = f"item {key!r} is gone" if isinstance(error, KeyError) else str(error)
                    raise CorruptEntryError(f"{problem}. It is not computed again: {why}") from error
                log.warning("%s; it is computed again", error)
                self._compute_missing(map_entry, {key: item}, 0, True, set())
            return map_entry.items.get(key)

    # computing what is missing

    def _compute_missing(
        self, map_entry: MapEntry, needed: dict[str, tp.Any], asked: int, redo: bool, computed: set[str]
    ) -> None:
        """Returns when all needed items are stored; adds those that were recomputed to ``computed``."""
        missing = list(needed) if redo else map_entry.missing_keys(needed)
        if not redo and self.on_code_change != "ignore":
            self._handle_changed(map_entry, needed)
        if not self._is_here() or len(missing) < len(needed):
            use_result(map_entry.cache, None)  # of items it is not recorded what they used
        if not missing:
            return
        self._check_start()
        call = MapCall(
            map_entry,
            {key: needed[key] for key in missing},
            cluster=None if self._is_here() else self.cluster,
            redo=redo,
            divide=self._divide,
            check_allowed=functools.partial(self._check_allowed, asked),
            compute=functools.partial(self._compute, map_entry),
        )
        try:
            if self.mode != "read-only":
                map_entry.create(self._describe)
            call.run()
        except OSError as error:
            raise files.disk_error(map_entry.folder, error) from error
        finally:
            computed.update(call.done if redo else ())

    def _handle_changed(self, map_entry: MapEntry, needed: dict[str, tp.Any]) -> None:
        """Recomputes the stored items that different code has computed, or warns of them, as the settings say."""
        changed = self._changed_keys(map_entry, needed)
        if changed and self._refuse_or_warn(map_entry, changed):
            self._compute_missing(map_entry, {key: needed[key] for key in changed}, 0, True, set())

    def _changed_keys(self, map_entry: MapEntry, needed: tp.Iterable[str]) -> dict[str, str]:
        """The stored items that different code has computed, with that code."""
        typed, items = self._cells(), map_entry.items
        codes = {} if typed is None else {key: items.code(key) for key in needed if key in items}
        known = {key: code for key, code in codes.items() if code is not None and typed and code != typed.digest}
        return {key: code for key, code in known.items() if typed and typed.changes(map_entry.cache, code) != []}

    def _refuse_or_warn(self, map_entry: MapEntry, changed: dict[str, str]) -> bool:
        """Acts on items that different code has computed as the settings say; whether they are to be recomputed."""
        typed, codes = self._cells(), set(changed.values())
        names = [None if typed is None else typed.changes(map_entry.cache, code) for code in sorted(codes)]
        count = count_noun(len(changed), "stored item", "stored items")
        was = "was" if len(changed) == 1 else "were"
        what = f"{self.uid()}: {count} {was} computed with different code ({changed_text(names)})"
        choices = (
            "infra.on_code_change=rerun recomputes them, another infra.version keeps both, infra.on_code_change=ignore "
            "silences this warning"
        )
        if self.on_code_change == "error":
            raise CacheError(f"Nothing was run, because of on_code_change=error: {what}. {choices}")
        if self.on_code_change == "rerun" and self.mode != "read-only":
            log.info("%s; recomputed", what)
            return True
        said = (str(map_entry.folder), None if typed is None else typed.digest, *sorted(codes))
        if said not in _said:
            _said.add(said)
            log.warning("%s. %s", what, choices)
        return False

    def _check_start(self) -> None:
        """Raises if nothing can be computed here, whichever items are asked for."""
        launch_settings.refuse_while_loading()
        registry.format_named(self._map()[1].cache_type)

    def _check_allowed(self, asked: int, missing: tp.Sequence[str]) -> None:
        """Raises if the missing items must not be computed."""
        which = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
        if self.mode == "read-only":
            raise CacheError(
                f"{self.uid()}: mode=read-only, and {len(missing)} of {asked} items have no value: {which}"
            )
        if asked == 1 and self.forbid_single_item_computation:
            raise ConfigError(
                f"{self.uid()}: {which} is not stored, and forbid_single_item_computation=True. Compute all items in "
                "one call first, or allow it"
            )

    def _compute(self, map_entry: MapEntry, claim: ItemClaim, chunks: tp.Sequence[Pairs], fresh: bool) -> None:
        """Computes and stores what is claimed."""
        _, applied = self._map()
        typed = self._cells()
        if typed is not None:
            typed.store(map_entry.cache)
        if self._is_here():
            self._record_computing(map_entry)
        with self._bar(sum(map(len, chunks))) as bar:
            if not self._is_here():
                self._compute_in_jobs(map_entry, fresh, claim, chunks, bar)
            elif self.cluster == "processpool":
                self._compute_in_processes(chunks, map_entry, claim, lambda found: None, bar)
            else:
                number, code = claim.number, None if typed is None else typed.digest
                writer = map_compute.writer_of_process(map_entry.folder, number, applied.cache_type, fresh, code)
                try:
                    with self._in_copy(map_entry):
                        self._compute_here(chunks, writer.add, bar)
                finally:
                    writer.commit()

    def _record_computing(self, map_entry: MapEntry) -> None:
        """Records in the entry who computes items of it, once for all calls of this object in a process."""
        if map_entry.recorded_by != os.getpid():
            map_entry.recorded_by = os.getpid()
            task_record.write_record(map_entry.entry, self._provenance(clusters.inline_cluster()))

    def _compute_in_ram(
        self, needed: dict[str, tp.Any], asked: int, kept: dict[str, tp.Any], computed: set[str]
    ) -> dict[str, tp.Any]:
        """The results of the needed items without a folder; each is put into ``kept`` as soon as it is computed."""
        found: dict[str, tp.Any] = {}
        if not needed:
            return found
        self._check_start()
        self._refuse_without_folder()
        self._check_allowed(asked, list(needed))

        def add(key: str, value: tp.Any) -> None:
            found[key] = kept[key] = _independent_copy(value)  # the method may use its buffer for the next one
            computed.add(key)

        def receive(results: dict[str, tp.Any]) -> None:
            for key, value in results.items():
                add(key, value)

        chunks = [[(key, needed[key]) for key in chunk] for chunk in self._divide(list(needed))]
        with self._bar(len(needed)) as bar:
            if self.cluster == "processpool":
                self._compute_in_processes(chunks, None, None, receive, bar)
            else:
                self._compute_here(chunks, add, bar)
        return found

    def _compute_here(self, chunks: tp.Sequence[Pairs], add: map_compute.AddResult, bar: ProgressBar) -> None:
        """In this process, in threads if the cluster is their pool."""
        owner, applied = self._map()

        def count_and_add(key: str, value: tp.Any) -> None:
            add(key, value)
            bar.update()

        def compute(chunk: Pairs) -> None:
            map_compute.compute_items(owner, applied, chunk, count_and_add, self._task_error)

        if self.cluster == "threadpool" and len(chunks) > 1:
            pools.run_in_pool("threadpool", self._workers(len(chunks)), compute, chunks, lambda done: None)
        else:
            here = clusters.inline_cluster(debug=self.cluster == "debug")
            for chunk in chunks:
                here.call(functools.partial(compute, chunk))

    def _compute_in_processes(
        self,
        chunks: tp.Sequence[Pairs],
        map_entry: MapEntry | None,
        claim: ItemClaim | None,
        receive: tp.Callable[[dict[str, tp.Any]], None],
        bar: ProgressBar,
    ) -> None:
        owner, _ = self._map()

        def done(data: bytes) -> None:
            count, found = pickle.loads(data)
            receive(pickle.loads(found) if found else {})
            bar.update(count)

        header = payload.Payload.of_this_process("processpool", b"", False)
        if map_entry is not None:
            header = self._checked_settings(map_entry).prepare(header)
        folder = None if map_entry is None else map_entry.folder
        packed = map_compute.pack_chunk(header, owner, self._name, chunks, folder, claim)
        pools.run_in_pool("processpool", self._workers(len(chunks)), map_compute.compute_in_pool, packed, done)

    def _compute_in_jobs(
        self, map_entry: MapEntry, fresh: bool, claim: ItemClaim, chunks: tp.Sequence[Pairs], bar: ProgressBar
    ) -> None:
        """Computes each chunk in a job of one array. Raises the first error when all jobs have ended."""
        owner, _ = self._map()
        tasks = [
            Task(
                map_entry.job_identity(claim, index),
                (owner, chunk),
                (f"{self.uid()}, {len(chunk)} items",),
                self._describe,
            )
            for index, chunk in enumerate(chunks)
        ]
        sizes = {task.identity.digest: len(chunk) for task, chunk in zip(tasks, chunks, strict=True)}
        settings = self._settings(map_entry.jobs, self._cluster(len(chunks)), Mode.CACHED)
        launch = Launch(tasks, map_compute.MapProgram(self._name, claim, fresh), settings)

        def finished(result: Result) -> None:
            bar.update(sizes[result.task.identity.digest])

        launch.on_result = finished
        errors = [result.error for result in launch.run() if result.error is not None]
        if errors:
            log.error("%s: %d of %d jobs failed", self.uid(), len(errors), len(chunks))
            raise errors[0]

    def _checked_settings(self, map_entry: MapEntry) -> Settings:
        """The settings for pools and for this process, checked."""
        settings = self._settings(map_entry.jobs, clusters.inline_cluster(), Mode.CACHED)
        settings.check()
        return settings

    def _in_copy(self, map_entry: MapEntry) -> contextlib.AbstractContextManager[None]:
        """The copy of the code, to run the method in it in this process."""
        settings = self._checked_settings(map_entry)
        copy = settings.here()
        return contextlib.nullcontext() if copy is None or not settings.chdir else active.inside(copy)

    # how it is divided

    def _is_here(self) -> bool:
        """Whether this process and its pools compute."""
        return self.cluster in (None, "debug", *_POOLS)

    def _divide(self, keys: list[str]) -> list[list[str]]:
        """Chunks of nearly the same size, in order."""
        most = len(keys) // self.min_samples_per_job
        if self.cluster in _POOLS:
            most = min(most, _CHUNKS_PER_WORKER * self._workers(len(keys)))
        elif self._is_here():
            most = 1
        elif self.max_jobs is not None:
            most = min(most, self.max_jobs)
        count = max(1, most)
        bounds = [len(keys) * index // count for index in range(count + 1)]
        return [keys[start:end] for start, end in itertools.pairwise(bounds)]

    def _workers(self, chunks: int) -> int:
        return min(chunks, len(usable_cores()), self.max_jobs or chunks)

    def _bar(self, total: int) -> ProgressBar:
        return ProgressBar(self._map()[1].name, total)

    # where it is kept

    def _stored_identity(self, entry: Entry) -> dict[str, tp.Any] | None:
        return entry.identity_of_items()

    def _map_entry(self, identity: Identity) -> MapEntry:
        found = self._find_map_entry(identity)
        if found is not None:
            return found
        cache = self._cache()
        assert cache is not None
        factory_folder = cache.factory_folder(identity.factory, identity.version)
        if self.mode == "read-only":
            return MapEntry(cache, identity, Entry(factory_folder.path / identity.uid()))
        cache.create()
        factory_folder.create(self._project(cache))
        entry = factory_folder.open_entry(identity)
        return self._map_entries.setdefault(self._key(identity), MapEntry(cache, identity, entry))

    def _find_map_entry(self, identity: Identity) -> MapEntry | None:
        """The entry of the items, None before there is one."""
        key, cache = self._key(identity), self._cache()
        assert cache is not None
        if key not in self._map_entries:
            entry = cache.factory_folder(identity.factory, identity.version).find_entry(identity)
            if entry is None:
                return None
            self._map_entries[key] = MapEntry(cache, identity, entry)
        return self._map_entries[key]

    def _kept_items(self) -> dict[str, tp.Any]:
        """What is kept in RAM of the results of this object's items."""
        owner, _ = self._map()
        key = self._key(self.identity()) + (map_compute.cell_digest(owner) or "")
        return self._kept.setdefault(key, {}) if self.keep_in_ram else {}


def _independent_copy(value: tp.Any) -> tp.Any:
    """A copy of a value in RAM, so that callers cannot change the kept one. Immutable values are not copied."""
    numpy: tp.Any = sys.modules.get("numpy")
    fixed = numpy is not None and type(value) is numpy.ndarray and not value.flags.writeable
    if type(value) in _IMMUTABLE or (fixed and not isinstance(value.base, numpy.ndarray)):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  its class cannot be copied, for whatever reason
        return value
