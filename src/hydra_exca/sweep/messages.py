"""The console messages of a batch: the plan, failures as they happen, and the end."""

from __future__ import annotations

import contextlib
import logging
import sys
import textwrap
import time
import typing as tp
from collections import Counter, defaultdict
from pathlib import Path

from hydra_exca.errors import ExcaError, JobLostError, NotRunError
from hydra_exca.identity.redaction import Redaction
from hydra_exca.identity.uid import Identity
from hydra_exca.launch import actions
from hydra_exca.launch.code_changes import CodeChanges
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.launch.results import Result
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder
from hydra_exca.store.cache_folder import MOST_COUNTED
from hydra_exca.text import count_noun, relative_path

from . import tasks
from .compose import hydra_private
from .options import SweepOptions
from .script_identity import ScriptIdentity
from .tasks import SweepTask

log = logging.getLogger("exca.sweep")
_OTHER_VERSIONS = "results of other versions"  # the key of a message that is given once
_SHOWN_LOSSES = 5  # tasks whose jobs ended in the same way
_OF_SCRIPT = "what the script knows"
_CONFIRM_S = 2.0  # how long a second Ctrl-C is waited for


def say_what_counts(of_script: ScriptIdentity, redaction: Redaction, said: set[str]) -> None:
    """Says once what the script knows beside the configuration, if anything."""
    shown = of_script.shown(redaction)
    if shown and _OF_SCRIPT not in said:
        said.add(_OF_SCRIPT)
        log.info(
            "exca: beside the configuration, this counts: %s "
            "(hydra.launcher.exclude_from_uid=[script.<name>] leaves out what cannot change a result)",
            shown,
        )


def say_plan(
    lookups: tp.Sequence[LookupResult],
    cluster: str,
    folder: CacheFolder,
    said: set[str],
    older_identities: tp.Callable[[Identity], tp.Iterable[Identity]],
) -> None:
    """Says what is cached, joined and to be run, unless all is cached.

    If anything is to be run, says also what other versions hold, and what was stored under their ``older_identities``.
    ``said`` has the messages that are given once.
    """
    distinct = _distinct(lookups)
    to_run = _count_missing(distinct)
    joined = sum(lookup.action is actions.Action.JOIN for lookup in distinct)
    if to_run + joined:
        where = f"{to_run} to run on {cluster}" if to_run else "nothing to run"
        cached = len(distinct) - to_run - joined
        log.info("exca: %s: %d cached, %d joined, %s", _count_tasks(lookups, distinct), cached, joined, where)
    if to_run and _OTHER_VERSIONS not in said:
        said.add(_OTHER_VERSIONS)
        for line in _unused_versions(distinct, folder):
            log.info("exca: %s", line)
        older = _count_older(distinct, folder, older_identities)
        if older:
            log.warning(
                "exca: %s not reused: less of the function, its script or its notebook counted then",
                count_noun(older, "older result is", "older results are"),
            )


def _count_older(
    lookups: tp.Sequence[LookupResult],
    folder: CacheFolder,
    older_identities: tp.Callable[[Identity], tp.Iterable[Identity]],
) -> int:
    """How many of the tasks that are to be run have a result under an older identity."""
    missing = [lookup.identity for lookup in lookups if lookup.action is actions.Action.RUN]
    return sum(any(_is_stored(older, folder) for older in older_identities(identity)) for identity in missing)


def _is_stored(identity: Identity, folder: CacheFolder) -> bool:
    return folder.factory_folder(identity.factory, identity.version).read_stored(identity) is not None


class FailureMessages:
    """One line for each task that has failed, as soon as it has; a few for those whose jobs ended in the same way."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __call__(self, result: Result) -> None:
        if result.error is None or isinstance(result.error, NotRunError):
            return
        why = getattr(result.error, "state", "") or _class_name(result.error)
        if isinstance(result.error, JobLostError):
            self._counts[why] += 1
        if self._counts[why] <= _SHOWN_LOSSES:
            log.error("exca: %s failed: %s%s", _name(result), why, _log_hint(result.error))
        elif self._counts[why] == _SHOWN_LOSSES + 1:
            log.error("exca: more tasks failed: %s", why)


def say_end(results: tp.Sequence[Result], seconds: float, sweep_folder: Path) -> list[Result]:
    """How the tasks ended and where their results are; returns those that failed, each once."""
    distinct = list({result.task.identity.key: result for result in results}.values())
    failed = [result for result in distinct if result.error is not None and result.how != "not run"]
    counts = _count_endings(distinct)
    log.info("exca: %s: %s, %d failed in %.1f s", _count_tasks(results, distinct), counts, len(failed), seconds)
    folders = dict.fromkeys(result.entry.factory_folder for result in results if result.entry_or_none is not None)
    if folders:
        results_in = ", ".join(relative_path(Path(folder)) for folder in folders)
        log.info("exca: results in %s, outputs in %s", results_in, relative_path(sweep_folder))
    for group in _group_losses(failed):
        if len(group) == 1:
            log.error("exca: failed: %s -> %s", _name(group[0]), _headline(group[0]))
        else:
            names, more = ", ".join(map(_name, group[:_SHOWN_LOSSES])), len(group) - _SHOWN_LOSSES
            log.error("exca: failed: %s and %d more -> %s", names, more, _headline_of_group(group))
    return failed


def _group_losses(failed: tp.Iterable[Result]) -> tp.Iterator[list[Result]]:
    """Each failed result alone, but many whose jobs ended in the same way together."""
    groups: dict[tp.Hashable, list[Result]] = {}
    for result in failed:
        is_lost = isinstance(result.error, JobLostError)
        key = (getattr(result.error, "state", ""), result.status, result.how) if is_lost else id(result)
        groups.setdefault(key, []).append(result)
    for group in groups.values():
        if len(group) > _SHOWN_LOSSES:
            yield group
        else:
            yield from ([result] for result in group)


def _count_endings(distinct: tp.Iterable[Result]) -> str:
    counts = Counter("submitted" if result.is_open and result.how == "run" else result.how for result in distinct)
    rare = [how for how in ("submitted", "not run") if counts[how]]
    return ", ".join(f"{counts[how]} {how}" for how in ("cached", "joined", "run", *rare))


def say_dry_run(
    batch: tp.Sequence[SweepTask],
    lookups: tp.Sequence[LookupResult],
    chosen: SweepOptions,
    code_changes: CodeChanges | None,
) -> list[str]:
    """Lists what would be done; returns it in a few words, one text for each job."""
    lines = []
    for task, lookup in zip(batch, lookups, strict=True):
        overrides = " ".join(task.shown)
        would = f"refused: {lookup.problem}" if lookup.problem else f"would {lookup.action}"
        lines.append(f"#{task.job.number} {overrides} -> {lookup.uid}: {lookup.status}, {would}")
    lines += tasks.split_by_excluded(batch, chosen.exclude_from_uid)
    lines += [] if code_changes is None else [str(code_changes)]
    distinct = _distinct(lookups)
    if _count_missing(distinct):
        lines += _unused_versions(distinct, CacheFolder(chosen.folder))
    log.info("exca: dry run, nothing is run:\n%s", "\n".join(f"  {line}" for line in lines))
    return [f"{lookup.uid}: {lookup.action}" for lookup in lookups]


def _distinct(lookups: tp.Sequence[LookupResult]) -> list[LookupResult]:
    """Each task once, however many jobs share it."""
    return list({id(lookup): lookup for lookup in lookups}.values())


def _count_missing(distinct: tp.Iterable[LookupResult]) -> int:
    """How many are to be run."""
    return sum(lookup.action in (actions.Action.RUN, actions.Action.CANCEL_AND_RUN) for lookup in distinct)


def _unused_versions(lookups: tp.Sequence[LookupResult], folder: CacheFolder) -> tp.Iterator[str]:
    """A line for each other version that holds results of the same factory."""
    used: dict[str, set[str]] = defaultdict(set)
    for lookup in lookups:
        used[lookup.identity.factory].add(lookup.identity.version)
    for factory, versions in used.items():
        whose = f" of {factory}" if len(used) > 1 else ""
        for version, count in folder.other_versions(factory, *versions).items():
            counted = count_noun(count, "result", "results") + (" or more" if count == MOST_COUNTED else "")
            yield f"version {version}{whose} has {counted} that this launch does not use"


def _headline(result: Result) -> str:
    error = result.error
    assert error is not None
    message = str(error).replace(getattr(error, "type", "") or "\0", _class_name(error))
    first = textwrap.shorten(message.splitlines()[0], 300)
    return f"{first}{_log_hint(error)}{_retry_hint(result)}"


def _headline_of_group(results: tp.Sequence[Result]) -> str:
    """What became of tasks whose jobs ended in the same way."""
    first = results[0]
    is_stored = first.status is Status.FAILED
    then = _retry_hint(first) if is_stored else ". Nothing is stored: the same command submits the tasks again"
    why, hint = getattr(first.error, "state", ""), _log_hint(first.error)
    return f"their jobs ended without a result: {why}{hint and f', for example{hint}'}{then}"


def _retry_hint(result: Result) -> str:
    is_stored = result.how == "cached"
    return "; it was not run again: hydra.launcher.mode=retry runs what failed" if is_stored else ""


def _name(result: Result) -> str:
    """The task by its overrides."""
    return " ".join(result.task.overrides) or result.uid


def _log_hint(error: ExcaError | None) -> str:
    path = getattr(error, "log", None)
    return f" (log: {relative_path(Path(path))})" if path else ""


def _class_name(error: ExcaError) -> str:
    """The class of what a task raised, without its module."""
    return str(getattr(error, "type", "") or type(error).__name__).rpartition(".")[2]


def _count_tasks(jobs: tp.Sequence[tp.Any], distinct: tp.Sequence[tp.Any]) -> str:
    """The number of tasks, and of the jobs that share them.

    >>> _count_tasks("aab", "ab"), _count_tasks("a", "a")
    ('2 tasks (for 3 jobs)', '1 task')
    """
    count = count_noun(len(distinct), "task", "tasks")
    return count if len(jobs) == len(distinct) else f"{count} (for {len(jobs)} jobs)"


@contextlib.contextmanager
def explain_interrupt(launch: Launch) -> tp.Iterator[None]:
    """Says which jobs keep running after Ctrl-C; a second one within two seconds asks whether to cancel them."""
    try:
        yield
    except KeyboardInterrupt:
        detached = launch.open_submissions() if launch.is_detached else []
        if not detached:
            raise
        log.warning(
            "exca: detached: %s. The jobs keep running; the same command returns to them. "
            "Press Ctrl-C again within %g s to cancel them",
            "; ".join(detached),
            _CONFIRM_S,
        )
        _ask_whether_to_cancel(launch)
        if not hydra_private.is_under_main():
            raise
        raise SystemExit(130) from None


def _ask_whether_to_cancel(launch: Launch) -> None:
    try:
        time.sleep(_CONFIRM_S)
    except KeyboardInterrupt:
        print("\nCancel the jobs of this launch? [y/N] ", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            if sys.stdin.readline().strip().lower() in ("y", "yes"):
                log.warning("exca: %s cancelled", count_noun(launch.cancel_all(), "task is", "tasks are"))
