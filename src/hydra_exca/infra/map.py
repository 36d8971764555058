"""MapInfra: a method over items, of which each has its result stored."""

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

from hydra_exca import clusters
from hydra_exca.clusters.local import usable_cores
from hydra_exca.code import active
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError
from hydra_exca.identity.uid import Identity
from hydra_exca.job import payload
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.provenance import task_record
from hydra_exca.status import Mode
from hydra_exca.store import Entry
from hydra_exca.store.formats import registry
from hydra_exca.store.items.claims import ItemClaim

from . import binding, launch_settings, map_compute, pools
from .base import BaseInfra
from .binding import Exclusions
from .map_claims import MapCall, MapEntry
from .map_compute import MapApplied, Pairs
from .progress import Bar

log = logging.getLogger("exca.map")
Method = tp.TypeVar("Method", bound=tp.Callable[..., tp.Any])
_POOLS = ("threadpool", "processpool")
_CHUNKS_PER_WORKER = 3  # of a pool: one that is done early takes another
_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None))
_noted: set[tuple[int, str]] = set()  # entries that say that this process computes there


class MapInfra(BaseInfra):
    """Gives a method from items to one result an item a cache of items and a cluster.

        class Features(pydantic.BaseModel):
            scale: int = 2
            infra: MapInfra = MapInfra(version="1")

            @infra.apply(item_uid=str)
            def of(self, paths: list[str]) -> Iterator[np.ndarray]:
                for path in paths:
                    yield load(path) * self.scale

        Features(infra={"folder": "cache", "cluster": "slurm"}).of(["a.wav", "b.wav"])

    What is missing is computed in at most ``max_jobs`` jobs of at least ``min_samples_per_job`` items each; in a pool
    (``threadpool``, ``processpool``) by as many workers as there are cores, and no more than ``max_jobs``.
    ``keep_in_ram`` keeps results in the object too. ``forbid_single_item_computation``: asking for one item that
    is not stored is an error. Mode ``force`` computes each item anew, once for one object; ``read-only`` nothing.
    """

    _exca_pools: tp.ClassVar[tuple[str, ...]] = _POOLS
    _exca_pickled: tp.ClassVar[tuple[str, ...]] = ("_computed",)

    cluster: tp.Literal["debug", "local", "slurm", "auto", "threadpool", "processpool"] | None = None  # type: ignore[assignment]
    mode: tp.Literal["cached", "force", "read-only"] = "cached"
    keep_in_ram: bool = True
    max_jobs: pydantic.PositiveInt | None = 128
    min_samples_per_job: pydantic.PositiveInt = 1
    forbid_single_item_computation: bool = False

    _computed: dict[str, set[str]] = pydantic.PrivateAttr(default_factory=dict)
    _kept: dict[str, dict[str, tp.Any]] = pydantic.PrivateAttr(default_factory=dict)
    _places: dict[str, MapEntry] = pydantic.PrivateAttr(default_factory=dict)

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
        self._applied = applied = MapApplied(method, **how)
        signature = inspect.signature(method)

        @functools.wraps(method)
        def mapped(obj: tp.Any, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            given = signature.bind(obj, *args, **kwargs)
            given.apply_defaults()
            items = given.args[1]
            infra = getattr(obj, self._name, None)
            if isinstance(infra, MapInfra) and infra._owner is None:
                binding.attach_infra(obj)  # an object that was made without validation
            if not isinstance(infra, MapInfra) or infra._applied is not applied:
                return method(obj, items)  # a subclass has given that infra to another method
            return infra._call(items)

        return mapped

    def _map(self) -> tuple[pydantic.BaseModel, MapApplied]:
        owner, applied = self._bound()
        return owner, tp.cast(MapApplied, applied)

    # one call

    def _call(self, items: tp.Iterable[tp.Any]) -> tp.Iterator[tp.Any]:
        """Computes what is missing, now; the iterator it returns only reads."""
        _, applied = self._map()
        pairs = [(applied.key(item), item) for item in items]
        keys, wanted = [key for key, _ in pairs], dict(reversed(pairs))  # of a name the first item
        identity = self.identity()
        cache = self._key(identity)
        kept = self._kept.setdefault(cache, {}) if self.keep_in_ram else {}
        computed = self._computed.setdefault(cache, set())
        redo = self.mode == "force"
        done = computed & kept.keys() if redo and self.folder is None else computed if redo else kept.keys()
        needed = {key: wanted[key] for key in dict.fromkeys(keys) if key not in done}
        if self.folder is None:
            found = {**kept, **self._filled_ram(needed, len(wanted), kept, computed)}
            return map(_given, [found[key] for key in keys])
        for key in needed:
            kept.pop(key, None)
        place = self._place(identity)
        self._fill(place, needed, len(wanted), redo, computed)
        return self._read(place, keys, wanted, kept)

    def _read(
        self, place: MapEntry, keys: tp.Sequence[str], wanted: dict[str, tp.Any], kept: dict[str, tp.Any]
    ) -> tp.Iterator[tp.Any]:
        for key in keys:
            if key in kept:
                yield _given(kept[key])
                continue
            value = self._stored(place, key, wanted[key])
            if self.keep_in_ram:
                kept[key] = value
                value = _given(value)
            yield value

    def _stored(self, place: MapEntry, key: str, item: tp.Any) -> tp.Any:
        """The stored result; what cannot be trusted is computed again."""
        try:
            return place.items.get(key)
        except (KeyError, CorruptEntryError) as error:
            place.items.discard(key)
            if place.lacking([key]):
                if self.mode == "read-only" or self.identity() != place.identity:
                    why = "mode=read-only" if self.mode == "read-only" else "the object was changed since it was asked"
                    told = f"item {key!r} is gone" if isinstance(error, KeyError) else str(error)
                    raise CorruptEntryError(f"{told}. It is not computed again: {why}") from error
                log.warning("%s; it is computed again", error)
                self._fill(place, {key: item}, 0, True, set())
            return place.items.get(key)

    # filling

    def _fill(self, place: MapEntry, needed: dict[str, tp.Any], asked: int, redo: bool, computed: set[str]) -> None:
        """Returns when all that is needed is stored; what was computed anew is added to ``computed``."""
        lacking = list(needed) if redo else place.lacking(needed)
        if not lacking:
            return
        self._check_start()
        filling = MapCall(
            place,
            {key: needed[key] for key in lacking},
            cluster=None if self._is_here() else self.cluster,
            redo=redo,
            divide=self._divide,
            agree=functools.partial(self._agree, asked),
            compute=functools.partial(self._compute, place),
        )
        try:
            if self.mode != "read-only":
                place.create(self._describe)
            filling.run()
        except OSError as error:
            raise CacheError(f"{place.folder} cannot be written: {error.strerror}") from error
        finally:
            computed.update(filling.done if redo else ())

    def _check_start(self) -> None:
        """Raises if nothing can be computed, whatever is asked."""
        launch_settings.refuse_while_loading()
        registry.format_named(self._map()[1].cache_type)

    def _agree(self, asked: int, missing: tp.Sequence[str]) -> None:
        """Raises if these may not be computed."""
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

    def _compute(self, place: MapEntry, claim: ItemClaim, chunks: tp.Sequence[Pairs], fresh: bool) -> None:
        """Computes and stores what is claimed."""
        _, applied = self._map()
        if self._is_here():
            self._note(place)
        with self._bar(sum(map(len, chunks))) as bar:
            if not self._is_here():
                self._compute_in_jobs(place, fresh, claim, chunks, bar)
            elif self.cluster == "processpool":
                self._compute_in_processes(chunks, place, claim, lambda found: None, bar)
            else:
                writer = map_compute.writer_of_process(place.folder, claim.number, applied.cache_type, fresh)
                try:
                    with self._in_copy(place):
                        self._compute_here(chunks, writer.add, bar)
                finally:
                    writer.commit()

    def _note(self, place: MapEntry) -> None:
        """Records in the entry who computes items of it, once for all calls of a process."""
        key = (os.getpid(), str(place.entry.path))
        if key not in _noted:
            _noted.add(key)
            task_record.write_record(place.entry, self._provenance(clusters.inline_cluster()))

    def _filled_ram(
        self, needed: dict[str, tp.Any], asked: int, kept: dict[str, tp.Any], computed: set[str]
    ) -> dict[str, tp.Any]:
        """Without a folder: the results of what is needed, put into ``kept`` as soon as they are there."""
        found: dict[str, tp.Any] = {}
        if not needed:
            return found
        self._check_start()
        self._refuse_without_folder()
        self._agree(asked, list(needed))

        def add(key: str, value: tp.Any) -> None:
            found[key] = kept[key] = _given(value)  # the method may use its buffer for the next one
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

    def _compute_here(self, chunks: tp.Sequence[Pairs], add: map_compute.Add, bar: Bar) -> None:
        """In this process, in threads if the cluster is their pool."""
        owner, applied = self._map()

        def tell_and_add(key: str, value: tp.Any) -> None:
            add(key, value)
            bar.update()

        def compute(chunk: Pairs) -> None:
            map_compute.compute_items(owner, applied, chunk, tell_and_add, self._failure)

        if self.cluster == "threadpool" and len(chunks) > 1:
            pools.run_in_pool("threadpool", self._workers(len(chunks)), compute, chunks, lambda done: None)
        else:
            here = clusters.inline_cluster(debug=self.cluster == "debug")
            for chunk in chunks:
                here.call(functools.partial(compute, chunk))

    def _compute_in_processes(
        self,
        chunks: tp.Sequence[Pairs],
        place: MapEntry | None,
        claim: ItemClaim | None,
        receive: tp.Callable[[dict[str, tp.Any]], None],
        bar: Bar,
    ) -> None:
        owner, _ = self._map()

        def done(data: bytes) -> None:
            count, found = pickle.loads(data)
            receive(pickle.loads(found) if found else {})
            bar.update(count)

        header = payload.Payload.of_this_process("processpool", b"", False)
        if place is not None:
            header = self._checked(place).prepare(header)
        folder = None if place is None else place.folder
        packed = map_compute.pack_chunk(header, owner, self._name, chunks, folder, claim)
        pools.run_in_pool("processpool", self._workers(len(chunks)), map_compute.compute_in_pool, packed, done)

    def _compute_in_jobs(
        self, place: MapEntry, fresh: bool, claim: ItemClaim, chunks: tp.Sequence[Pairs], bar: Bar
    ) -> None:
        """One job a chunk, as one array. Raises the first error when all have ended."""
        owner, _ = self._map()
        tasks = [
            Task(
                place.job_identity(claim, index), (owner, chunk), (f"{self.uid()}, {len(chunk)} items",), self._describe
            )
            for index, chunk in enumerate(chunks)
        ]
        sizes = {task.identity.digest: len(chunk) for task, chunk in zip(tasks, chunks, strict=True)}
        settings = self._settings(place.jobs, self._cluster(len(chunks)), Mode.CACHED)
        launch = Launch(tasks, map_compute.MapProgram(self._name, claim, fresh), settings)

        def finished(result: Result) -> None:
            bar.update(sizes[result.task.identity.digest])

        launch.on_result = finished
        errors = [result.error for result in launch.run() if result.error is not None]
        if errors:
            log.error("%s: %d of %d jobs failed", self.uid(), len(errors), len(chunks))
            raise errors[0]

    def _checked(self, place: MapEntry) -> Settings:
        """How pools and this process go about it."""
        settings = self._settings(place.jobs, clusters.inline_cluster(), Mode.CACHED)
        settings.check()
        return settings

    def _in_copy(self, place: MapEntry) -> contextlib.AbstractContextManager[None]:
        """Where the method runs in this process."""
        settings = self._checked(place)
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
        return min(chunks, usable_cores(), self.max_jobs or chunks)

    def _bar(self, total: int) -> Bar:
        return Bar(self._map()[1].name, total)

    # where it is kept

    def _stored_identity(self, entry: Entry) -> dict[str, tp.Any] | None:
        return MapEntry.stored_identity(entry)

    def _place(self, identity: Identity) -> MapEntry:
        key = self._key(identity)
        if key in self._places:
            return self._places[key]
        cache = self._cache()
        assert cache is not None
        shelf = cache.factory_folder(identity.factory, identity.version)
        entry = shelf.find_entry(identity)
        if entry is None and self.mode == "read-only":
            return MapEntry(cache, identity, Entry(shelf.path / identity.uid()))
        if entry is None:
            cache.create()
            shelf.create(self._project(cache))
            entry = shelf.open_entry(identity)
        self._places[key] = MapEntry(cache, identity, entry)
        return self._places[key]


def _given(value: tp.Any) -> tp.Any:
    """A kept value, such that whoever gets it can change it without changing what is kept."""
    numpy: tp.Any = sys.modules.get("numpy")
    fixed = numpy is not None and type(value) is numpy.ndarray and not value.flags.writeable
    if type(value) in _IMMUTABLE or (fixed and not isinstance(value.base, numpy.ndarray)):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  its class cannot be copied, for whatever reason
        return value
