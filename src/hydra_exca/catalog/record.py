"""One task as it is stored: how it ended, its configuration, its value."""

from __future__ import annotations

import datetime
import functools
import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.clusters import JobReport
from hydra_exca.confdict import ConfDict
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.identity import names
from hydra_exca.identity.label import readable_value
from hydra_exca.launch.slurm_job import read_description
from hydra_exca.rerun import comparison
from hydra_exca.rerun.comparison import Comparison
from hydra_exca.store import Claim, Entry, Outcome, launches

from . import entry_record, entry_rerun
from .column_names import MISSING, ColumnPlace, find_place
from .found_entry import FoundEntry

log = logging.getLogger("exca.catalog")
FIELDS = (
    *("status", "how", "error", "factory", "version", "submitted", "started", "ended", "seconds", "cluster", "job"),
    *("host", "user", "launch", "code", "overrides", "output", "log", "tracker", "uid"),
)
"""What a record has beside the configuration and the value, in the order of the columns."""
_READ_BYTES = 1 << 20  # of a value of JSON in a file; a larger one is left to `Record.load`
_CLASS = "~class"


class StoredFile(tp.NamedTuple):
    """A value in a file, which only `Record.load` reads: reading it may run code, or take long."""

    format: str
    size: int

    def __str__(self) -> str:
        return f"<{self.format}, {self.size:,} bytes>"


class ListedTask(tp.NamedTuple):
    """A task to read: its entry, the cache folder that this is in, and what a sweep says of it."""

    entry: str | None
    cache: Path
    listed: tp.Mapping[str, tp.Any] | None = None


class EntryState(tp.NamedTuple):
    """What the files of an entry say, and the cluster of its job. ``problem``: why there is no value.

    ``items``: the identity of the items, of a map. ``report``: what the cluster says of the job of an open task.
    """

    task: ListedTask
    entry: Entry | None
    status: str
    outcome: Outcome | None = None
    claim: Claim | None = None
    problem: str | None = None
    items: dict[str, tp.Any] | None = None
    report: JobReport | None = None


class ListingFacts:
    """What many records of one listing have in common, read once."""

    def __init__(self) -> None:
        self.read_launch = functools.cache(launches.read_record)
        self.user_name = functools.cache(files.user_name)


class Record:
    """One task of a listing.

    ``status`` is completed, failed, running, queued, lost (its job ended without a result), not submitted, or damaged.
    Times are aware datetimes, ``seconds`` is the duration; what is not known is None. ``how`` is only set in a sweep:
    reused, joined, run, submitted or not run. ``config`` is the stored configuration, ``output`` the folder of its
    outputs, ``log`` the last attempt's log.

    ``record["optimizer.lr"]`` is a value of the configuration, ``record["acc"]`` one of the result, ``record["job"]`` a
    field; ``config.``, ``value.`` and ``record.`` before a name tell them apart.
    """

    def __init__(self, state: EntryState, shared: ListingFacts) -> None:
        self.status = str(state.status)
        self.cache = state.task.cache
        self._listed = state.task.listed or {}
        self._entry = state.entry
        self._outcome = state.outcome
        self._claim = state.claim
        self._problem = state.problem
        self._report = state.report
        self._identity = state.items if state.outcome is None else state.outcome.identity
        self._shared = shared

    def __repr__(self) -> str:
        value = {} if self._outcome is None else {key or "value": value for key, value in self.value_leaves.items()}
        shown = ", ".join(f"{key}={value!s:.30}" for key, value in list(value.items())[:6])
        return f"<Record {self.uid}: {', '.join(filter(None, [self.status, self.error, shown]))}>"

    def __getitem__(self, name: str) -> tp.Any:
        place = find_place(name, lambda place: self.cell(place) is not MISSING)
        if place is None:
            raise KeyError(name)
        return self.cell(place)

    def get(self, name: str, default: tp.Any = None) -> tp.Any:
        """The same as ``record[name]``, ``default`` where it has no such name."""
        try:
            return self[name]
        except KeyError:
            return default

    # who it is

    @property
    def uid(self) -> str:
        return str(self._listed.get("uid")) if self._entry is None else self._entry.uid

    @property
    def path(self) -> Path | None:
        """The folder of its entry, None before there is one."""
        return None if self._entry is None else self._entry.path

    @property
    def factory(self) -> str | None:
        return self._factory_and_version[0]

    @property
    def version(self) -> str | None:
        return self._factory_and_version[1]

    @functools.cached_property
    def _factory_and_version(self) -> tuple[str | None, str | None]:
        if self._identity is not None:
            return self._identity["factory"], self._identity["version"]
        if self._entry is None:
            return None, None
        found = self.entry()
        return found.factory, found.version

    @property
    def overrides(self) -> list[str]:
        if "overrides" in self._listed:
            return list(self._listed["overrides"])
        return [] if self._entry is None else entry_record.read_entry(self.entry()).get("overrides", [])

    @property
    def trackers(self) -> list[dict[str, str]]:
        """The runs of experiment trackers that the task has made: ``tracker``, and ``id``, ``url``, ``folder``."""
        return [] if self._entry is None else entry_record.read_entry(self.entry()).get("trackers", [])

    @property
    def tracker(self) -> str | None:
        """Where to look at these runs: their URLs or folders."""
        return ", ".join(run.get("url") or run.get("folder") or run["id"] for run in self.trackers) or None

    @property
    def how(self) -> str | None:
        how = self._listed.get("how")
        return "reused" if how == "cached" else how

    # what it gave

    @property
    def value(self) -> tp.Any:
        """The value where it is small and JSON; otherwise a `StoredFile`. None if there is none."""
        record = None if self._outcome is None else self._outcome.value
        if record is None or "inline" in record:
            return None if record is None else record["inline"]
        return self._value_of_file

    @functools.cached_property
    def _value_of_file(self) -> tp.Any:
        assert self._entry is not None and self._outcome is not None and self._outcome.value is not None
        stored = StoredFile(str(self._outcome.value.get("format")), self._outcome.value.get("size") or 0)
        if stored.format != "json" or stored.size > _READ_BYTES:
            return stored
        try:
            return self._entry.load_value(self._outcome)
        except (CacheError, OSError) as error:
            log.warning("%s", error)
            return stored

    def load(self) -> tp.Any:
        """The value, as the task returned it.

        Raises CacheError if there is none, or if it is a pickle of another user who is not in ``trust_users``;
        CorruptEntryError if its file is damaged.
        """
        if self._entry is None or self._outcome is None or self._outcome.value is None:
            why = f": {self.error}" if self.error else ""
            raise CacheError(f"{self.uid} has no value, it is {self.status}{why}")
        return self._entry.load_value(self._outcome)

    @property
    def error(self) -> str | None:
        """The error of a failed task in one line, or why it cannot be read."""
        error = None if self._outcome is None else self._outcome.error
        return self._problem if error is None else comparison.describe_error(error)

    @property
    def reason(self) -> str | None:
        """The error, or why its job waits, if the cluster says that."""
        return self.error or (None if self._report is None else self._report.explanation) or None

    @property
    def traceback(self) -> str | None:
        error = None if self._outcome is None else self._outcome.error
        return None if error is None else error.get("traceback")

    @property
    def output(self) -> Path | None:
        return None if self._entry is None else Path(self._entry.output_folder())

    @property
    def log(self) -> Path | None:
        if self._entry is None:
            return None
        path = entry_record.log_path(self._entry, self._outcome, self._claim)
        if path is None and self._report is not None and self._report.log is not None and self._report.log.exists():
            return self._report.log  # of a job that has not come to its task
        return None if path is None else Path(path)

    @functools.cached_property
    def config(self) -> ConfDict:
        """The whole configuration as a dictionary, also by dotted names: ``config["optimizer.lr"]``.

        What counts for the identity is there for every result; the rest if its description can be read.
        """
        try:
            return ConfDict() if self._entry is None else read_description(self._entry.path / paths.CONFIG_YAML)
        except (CorruptEntryError, OSError):
            return ConfDict(self.config_leaves if self.has_identity else None)

    def rerun(self, into: Path | str | None = None) -> Comparison:
        """Computes the task again, outside the cache, and compares the values; see docs/cli.md."""
        return entry_rerun.rerun_entry(self.entry(), None if into is None else Path(into), log.warning)

    def entry(self) -> FoundEntry:
        """Its entry. Raises CacheError before there is one."""
        if self._entry is None:
            raise CacheError(f"{self.uid} has not run")
        return FoundEntry(self._entry.path, self.cache)

    # where and when

    @property
    def _source(self) -> Outcome | Claim | None:
        return self._outcome or self._claim

    @property
    def launch(self) -> str | None:
        return (self._source.token or None) if self._source is not None else None

    @property
    def cluster(self) -> str | None:
        return None if self._source is None else self._source.cluster

    @property
    def job(self) -> str | None:
        return None if self._source is None else self._source.job

    @property
    def host(self) -> str | None:
        if self._outcome is not None:
            return self._outcome.host
        return None if self._claim is None else self._claim.owner.get("host")

    @property
    def code(self) -> str | None:
        return None if self._outcome is None else self._outcome.code

    @property
    def user(self) -> str | None:
        """Who owns the stored result."""
        if self._source is None:
            return None
        return self._shared.user_name(os.getuid() if self._source.writer is None else self._source.writer)

    @property
    def submitted(self) -> datetime.datetime | None:
        """When its launch began."""
        if self.launch is None:
            return None
        return to_datetime(self._shared.read_launch(paths.launch_folder(self.cache, self.launch)).get("started"))

    @property
    def started(self) -> datetime.datetime | None:
        if self._outcome is not None:
            return to_datetime(self._outcome.started)
        return to_datetime(self._claim.time) if self._claim is not None and self.status == "running" else None

    @property
    def ended(self) -> datetime.datetime | None:
        return None if self._outcome is None else to_datetime(self._outcome.ended)

    @property
    def seconds(self) -> float | None:
        outcome = self._outcome
        if outcome is None or outcome.started is None or outcome.ended is None:
            return None
        return outcome.ended - outcome.started

    # as columns

    @property
    def has_identity(self) -> bool:
        """Whether it is known which keys of the configuration count."""
        return self._identity is not None

    @functools.cached_property
    def config_leaves(self) -> dict[str, tp.Any]:
        """What counts for the identity, by dotted name."""
        if self._identity is not None:
            form = self._identity["full"]
            return {key: readable_value(leaf) for key, leaf in names.flatten(form).items() if key[-6:] != _CLASS}
        return self.config.flat() if self._entry is not None else {}

    @functools.cached_property
    def value_leaves(self) -> dict[str, tp.Any]:
        """The numbers of a dictionary by dotted name; another value alone, under the empty name."""
        if self._outcome is None or self._outcome.value is None:
            return {}
        value = self.value
        return names.flatten(value) if isinstance(value, dict) and value else {"": value}

    def cell(self, place: ColumnPlace) -> tp.Any:
        """What is in one column, `MISSING` if it has none."""
        if place.space == "record":
            return getattr(self, place.key) if place.key in FIELDS else MISSING
        if place.space == "value":
            return self.value_leaves.get(place.key, MISSING)
        return self.config_leaves.get(place.key, MISSING)


def to_datetime(seconds: float | None) -> datetime.datetime | None:
    """A time in the local time zone."""
    if not isinstance(seconds, int | float):
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone()
