"""Computes the items of a map: in this process, in a pool of it, or in a job."""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import functools
import os
import pickle
import reprlib
import threading
import typing as tp
from pathlib import Path

import pydantic

from hydra_exca import files
from hydra_exca.clusters import describe_process, process
from hydra_exca.errors import ConfigError, TaskFailedError
from hydra_exca.job import payload as payloads
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.cell_code import reached_cells
from hydra_exca.store.items.claims import ItemClaim
from hydra_exca.store.items.reader import Items, ItemWriter

from .binding import AppliedMethod

Pairs = tp.Sequence[tuple[str, tp.Any]]
AddResult = tp.Callable[[str, tp.Any], None]
_NAMED_ITEMS = 3  # of those among which is one with an error
_DIGITS = 32  # of the digest that a long uid ends in
WrapError = tp.Callable[[Exception], Exception]
_OPEN_WRITERS = 48  # each has two or more files open
outer_claims: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("outer_claims", default=frozenset())
"""Tokens of the claims being computed further up the stack: their items are computed, not waited for."""


@dataclasses.dataclass(frozen=True)
class AppliedMapMethod(AppliedMethod):
    """A method over items, how its items are named, and the format of its stored results."""

    item_uid: tp.Callable[[tp.Any], str] = str
    item_uid_max_length: int | None = 256
    cache_type: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = self.item_uid_max_length
        if limit is not None and limit < _DIGITS + 2:
            raise TypeError(f"item_uid_max_length={limit} of {self.name}: at least {_DIGITS + 2}, or None")

    def key(self, item: tp.Any) -> str:
        """The item's uid, its end replaced by a digest where it is too long."""
        key = self.item_uid(item)
        if not isinstance(key, str):
            raise TypeError(f"item_uid of {self.name} must return a str, and returned {key!r} for {item!r}")
        limit = self.item_uid_max_length
        return key if limit is None or len(key) <= limit else _shortened(key, limit)


def _shortened(key: str, limit: int) -> str:
    import hashlib

    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    return f"{key[: limit - len(digest) - 1]}-{digest}"


def compute_items(
    owner: pydantic.BaseModel, applied: AppliedMethod, pairs: Pairs, add: AddResult, wrap_error: WrapError | None = None
) -> None:
    """Runs the method over the items and passes each result to ``add`` as soon as it is yielded.

    ``wrap_error`` turns an error of the method into the one to raise.
    """
    for value, (key, _) in zip(_results(owner, applied, pairs, wrap_error), pairs, strict=False):
        add(key, value)


def _results(
    owner: pydantic.BaseModel, applied: AppliedMethod, pairs: Pairs, wrap_error: WrapError | None
) -> tp.Iterator[tp.Any]:
    count, items = 0, [item for _, item in pairs]
    results: tp.Any = None
    try:
        results = applied.method(owner, items)
        if not _has_result_per_item(results):
            shown = type(results).__qualname__
            raise TypeError(f"{applied.name} returned one {shown}; it must yield one result for each item, in order")
        for count, value in enumerate(results, start=1):
            if count > len(items):
                raise ConfigError(_miscounted(applied, "more", len(items)))
            yield value
        if count < len(items):
            raise ConfigError(_miscounted(applied, f"only {count}", len(items)))
    except Exception as error:
        is_of_method = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        if is_of_method and count < len(pairs):
            error.add_note(_name_item(pairs, count, is_lazy=results is not None))
        if wrap_error is None:
            raise
        raise wrap_error(error) from error


def _name_item(pairs: Pairs, index: int, is_lazy: bool) -> str:
    """Which item a method was at, as far as it yields each result when it has it."""
    if len(pairs) > 1 and not is_lazy:
        more = ", ..." if len(pairs) > _NAMED_ITEMS else ""
        return f"in one of {len(pairs)} items: {', '.join(repr(key) for key, _ in pairs[:_NAMED_ITEMS])}{more}"
    key, item = pairs[index]
    shown = item if isinstance(item, str) else reprlib.repr(item)
    shown = "" if shown == key else f", {reprlib.repr(item)}"
    return f"in item {key!r}{shown}"


def with_index(error: TaskFailedError, keys: tp.Sequence[str]) -> TaskFailedError:
    """The error of an item, with the place of that among ``keys``: those that were asked for, not those of its job."""
    note = error.notes[-1] if error.notes else ""
    index = next((index for index, key in enumerate(keys) if f"{note},".startswith(f"in item {key!r},")), None)
    if index is None:
        return error
    told = f"{note} (index {index} of {len(keys)})"
    fields = {name: value for name, value in vars(error).items() if name != "message"}
    fields |= {"traceback": error.traceback.replace(note, told), "notes": (*error.notes[:-1], told)}
    return TaskFailedError(error.message.replace(note, told), **fields)


def _has_result_per_item(results: tp.Any) -> bool:
    """Whether results can be one for each item: not what iterates over keys, characters, columns, or in no order."""
    wrong = (str, bytes, collections.abc.Mapping, collections.abc.Set)
    return isinstance(results, collections.abc.Iterable) and not isinstance(results, wrong) and not _is_frame(results)


def _is_frame(results: tp.Any) -> bool:
    return hasattr(results, "columns") and hasattr(results, "index")


def _miscounted(applied: AppliedMethod, yielded: str, asked: int) -> str:
    return (
        f"{applied.name} yielded {yielded} results for {asked} items; it must yield one for each, in order. What it "
        "yielded is kept, paired with the items in their order: if it left one out on the way, repeat with mode='force'"
    )


# in this process

_writers: collections.OrderedDict[tuple[int, Path, str | None, str | None], ItemWriter] = collections.OrderedDict()
_lock = threading.Lock()


def writer_of_process(
    folder: Path, number: int, cache_type: str | None, fresh: bool, code: str | None = None
) -> ItemWriter:
    """A writer of this process for the items in ``folder``: many small calls share one, and with it two files.

    ``fresh`` asks for one of its own ``number``, whose items come before those of lower ones.
    """
    with _lock:
        key = (os.getpid(), folder, cache_type, code)
        writer = None if fresh else _writers.pop(key, None)
        if writer is None or not writer.is_open:
            writer = new_writer(folder, number, cache_type, code=code)
        _writers[key] = writer
        while len(_writers) > _OPEN_WRITERS:
            _writers.popitem(last=False)  # closed when the last call that writes to it is over
        return writer


def new_writer(
    folder: Path,
    number: int,
    cache_type: str | None,
    allowed: tp.Callable[[], bool] = lambda: True,
    code: str | None = None,
) -> ItemWriter:
    return ItemWriter(folder, f"{number}-{files.random_token()}", format=cache_type, allowed=allowed, code=code)


def cell_digest(owner: pydantic.BaseModel) -> str | None:
    """The digest of the code of cells that computes the items of an object, if there is any."""
    typed = reached_cells([owner])
    return None if typed is None else typed.digest


# in a process of a pool


@dataclasses.dataclass(frozen=True)
class PoolChunk:
    """The message to a process of a pool: the object, its infra's name, some items, and where their results go.

    Without a ``folder`` the results are sent back.
    """

    owner: pydantic.BaseModel
    infra_name: str
    pairs: Pairs
    folder: Path | None
    claim: ItemClaim | None
    launcher: dict[str, tp.Any]


def pack_chunk(
    common: payloads.Payload,
    owner: pydantic.BaseModel,
    infra_name: str,
    chunks: tp.Sequence[Pairs],
    folder: Path | None,
    claim: ItemClaim | None,
) -> list[bytes]:
    """The chunks as `compute_in_pool` takes them, with what they have in common.

    Raises ConfigError for what cannot be pickled.
    """
    header = pickle.dumps(common, protocol=5)
    launcher = describe_process()
    claim = None if claim is None else dataclasses.replace(claim, chunks=())  # all keys are not for each
    made = [PoolChunk(owner, infra_name, pairs, folder, claim, launcher) for pairs in chunks]
    name = type(owner).__qualname__
    return [
        pickle.dumps((header, payloads.pickle_named(each, f"{name} or one of its items")), protocol=5) for each in made
    ]


@functools.cache
def _enter(header: bytes) -> None:
    """Makes this process like the one that sent the chunk, once for each payload."""
    pickle.loads(header).enter()


def compute_in_pool(data: bytes) -> bytes:
    """Computes a chunk in this process of a pool; returns how many, and the results where they are not stored."""
    header, content = pickle.loads(data)
    _enter(header)
    chunk: PoolChunk = pickle.loads(content)
    infra = getattr(chunk.owner, chunk.infra_name)
    applied: AppliedMapMethod = infra._bound()[1]
    found: dict[str, tp.Any] = {}
    if chunk.folder is None or chunk.claim is None:
        compute_items(chunk.owner, applied, chunk.pairs, found.__setitem__, infra._task_error)
        return pickle.dumps((len(found), payloads.pickle_named(found, f"a result of {applied.name}")), protocol=5)
    outer_claims.set(frozenset({chunk.claim.token}))
    launched = lambda: process.is_alive(chunk.launcher) is not False  # noqa: E731
    code = cell_digest(chunk.owner)
    with new_writer(chunk.folder, chunk.claim.number, applied.cache_type, launched, code) as writer:
        compute_items(chunk.owner, applied, chunk.pairs, writer.add, infra._task_error)
    return pickle.dumps((len(chunk.pairs), b""))


# in a job


class MapProgram:
    """The program of a job: runs the method over some items and stores their results beside the job's entry."""

    def __init__(self, infra_name: str, claim: ItemClaim, fresh: bool) -> None:
        self.infra_name = infra_name
        self.token = claim.token
        self.number = claim.number
        self.fresh = fresh

    def __call__(self, argument: tuple[tp.Any, Pairs], attempt: Attempt) -> None:
        owner, pairs = argument
        applied: AppliedMapMethod = getattr(owner, self.infra_name)._bound()[1]
        folder = attempt.entry.path.parents[1]
        items = Items(folder)
        items.refresh()
        least = self.number if self.fresh else 0
        left = [(key, item) for key, item in pairs if key not in items or items.writer_number(key) < least]

        def still_owner() -> bool:
            owning = attempt.entry.current_claim()
            return owning is not None and owning.number == attempt.claim.number

        outer_claims.set(frozenset({self.token}))
        with new_writer(folder, self.number, applied.cache_type, still_owner, cell_digest(owner)) as writer:
            compute_items(owner, applied, left, writer.add)
