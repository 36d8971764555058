"""What the console says of a batch: the plan, failures as they come, and what became of it."""

from __future__ import annotations

import contextlib
import logging
import sys
import textwrap
import time
import typing as tp
from collections import Counter
from pathlib import Path

from hydra.core.utils import filter_overrides

from hydra_exca.errors import ExcaError, NotRunError
from hydra_exca.identity.uid import Identity
from hydra_exca.launch import plan
from hydra_exca.launch.code_changes import CodeChanges
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.launch.results import Result
from hydra_exca.store import CacheFolder
from hydra_exca.text import count_noun, relative_path

from . import tasks
from .options import SweepOptions
from .tasks import SweepTask

log = logging.getLogger("exca.sweep")
_OTHER_VERSIONS = "results of other versions"  # the key of a message that is given once


def say_plan(
    lookups: tp.Sequence[LookupResult],
    cluster: str,
    folder: CacheFolder,
    said: set[str],
    older_identity: tp.Callable[[Identity], Identity | None],
) -> int:
    """Says what is cached, joined and to be run, unless all is cached; returns how many are to be run.

    Where anything is to be run, says also what other versions hold, and what was stored under an ``older_identity``.
    ``said`` has the messages that are given once.
    """
    distinct = _distinct(lookups)
    to_run, joined = _count_missing(distinct), sum(found.action is plan.Action.JOIN for found in distinct)
    if to_run + joined:
        where = f"{to_run} to run on {cluster}" if to_run else "nothing to run"
        cached = len(distinct) - to_run - joined
        log.info("exca: %s: %d cached, %d joined, %s", _tasks(lookups, distinct), cached, joined, where)
    if to_run and _OTHER_VERSIONS not in said:
        said.add(_OTHER_VERSIONS)
        for line in _unused_versions(distinct, folder):
            log.info("exca: %s", line)
        older = _count_older(distinct, folder, older_identity)
        if older:
            log.warning(
                "exca: %s not reused: when stored, not all that the task function carries was part of the identity",
                count_noun(older, "older result is", "older results are"),
            )
    return to_run


def _count_older(
    lookups: tp.Sequence[LookupResult],
    folder: CacheFolder,
    older_identity: tp.Callable[[Identity], Identity | None],
) -> int:
    """How many of the tasks that are to be run have a result under their older identity."""
    older = [older_identity(each.identity) for each in lookups if each.action is plan.Action.RUN]
    found = [each for each in older if each is not None]
    return sum(folder.factory_folder(each.factory, each.version).read_stored(each) is not None for each in found)


def say_failure(result: Result) -> None:
    """One line for a task that has failed, as soon as it has."""
    if result.error is not None and not isinstance(result.error, NotRunError):
        why = getattr(result.error, "state", "") or _kind(result.error)
        log.error("exca: %s failed: %s%s", task_name(result), why, _log(result.error))


def say_end(results: tp.Sequence[Result], seconds: float, sweep_folder: Path) -> list[Result]:
    """What became of the tasks and where it is; returns those that failed, each once."""
    distinct = list({result.task.identity.key: result for result in results}.values())
    failed = [result for result in distinct if result.error is not None and result.how != "not run"]
    hows = ["submitted" if result.is_open and result.how == "run" else result.how for result in distinct]
    counts = Counter(hows)
    shown = ["cached", "joined", "run", *(how for how in ("submitted", "not run") if counts[how])]
    parts = ", ".join(f"{counts[how]} {how}" for how in shown)
    log.info("exca: %s: %s, %d failed in %.1f s", _tasks(results, distinct), parts, len(failed), seconds)
    entries = [result.entry for result in results if result.entry_or_none is not None]
    if entries:
        results_in = ", ".join(
            relative_path(Path(shelf)) for shelf in dict.fromkeys(entry.factory_folder for entry in entries)
        )
        log.info("exca: results in %s, outputs in %s", results_in, relative_path(sweep_folder))
    for result in failed:
        log.error("exca: failed: %s", _headline(result, retry=result.how == "cached"))
    return failed


def say_dry_run(
    asked: tp.Sequence[SweepTask],
    lookups: tp.Sequence[LookupResult],
    chosen: SweepOptions,
    code_changes: CodeChanges | None,
) -> list[str]:
    """Lists what would be done; returns it in a few words, one text for each job."""
    lines, plans = [], []
    for task, found in zip(asked, lookups, strict=True):
        overrides = " ".join(filter_overrides(task.overrides))
        would = f"refused: {found.problem}" if found.problem else f"would {found.action}"
        lines.append(f"  #{task.number} {overrides} -> {found.uid}: {found.status}, {would}")
        plans.append(f"{found.uid}: {found.action}")
    lines += [f"  {line}" for line in tasks.split_by_excluded(asked, chosen.exclude_from_uid)]
    lines += [] if code_changes is None else [f"  {code_changes}"]
    distinct = _distinct(lookups)
    unused = _unused_versions(distinct, CacheFolder(chosen.folder)) if _count_missing(distinct) else ()
    lines += [f"  {line}" for line in unused]
    log.info("exca: dry run, nothing is run:\n%s", "\n".join(lines))
    return plans


def task_name(result: Result) -> str:
    """How a task was asked for."""
    return " ".join(result.task.overrides) or result.uid


def _distinct(lookups: tp.Sequence[LookupResult]) -> list[LookupResult]:
    """Each task once, however many jobs share it."""
    return list({id(found): found for found in lookups}.values())


def _count_missing(distinct: tp.Iterable[LookupResult]) -> int:
    """How many are to be run."""
    return sum(found.action in (plan.Action.RUN, plan.Action.CANCEL_AND_RUN) for found in distinct)


def _unused_versions(lookups: tp.Sequence[LookupResult], folder: CacheFolder) -> tp.Iterator[str]:
    """A line for each other version that holds results of what is asked for."""
    used: dict[str, set[str]] = {}
    for found in lookups:
        used.setdefault(found.identity.factory, set()).add(found.identity.version)
    for factory, versions in used.items():
        whose = f" of {factory}" if len(used) > 1 else ""
        for version, count in folder.other_versions(factory, *versions).items():
            yield f"version {version}{whose} has {count_noun(count, 'result', 'results')} that this launch does not use"


def _headline(result: Result, retry: bool = False) -> str:
    error = result.error
    assert error is not None
    told = str(error).replace(getattr(error, "type", "") or "\0", _kind(error))
    first = textwrap.shorten(told.splitlines()[0], 300)
    again = "; it was not run again: hydra.launcher.mode=retry runs what failed" if retry else ""
    return f"{task_name(result)} -> {first}{_log(error)}{again}"


def _log(error: ExcaError) -> str:
    path = getattr(error, "log", None)
    return f" (log: {relative_path(Path(path))})" if path else ""


def _kind(error: ExcaError) -> str:
    """The class of what a task raised, without its module."""
    return str(getattr(error, "type", "") or type(error).__name__).rpartition(".")[2]


def _tasks(asked: tp.Sequence[tp.Any], distinct: tp.Sequence[tp.Any]) -> str:
    """How many tasks, and how many jobs share them.

    >>> _tasks("aab", "ab"), _tasks("a", "a")
    ('2 tasks (for 3 jobs)', '1 task')
    """
    noun = "1 task" if len(distinct) == 1 else f"{len(distinct)} tasks"
    return noun if len(asked) == len(distinct) else f"{noun} (for {len(asked)} jobs)"


_AGAIN_S = 2.0  # how long a second Ctrl-C is waited for


@contextlib.contextmanager
def explain_interrupt(launch: Launch) -> tp.Iterator[None]:
    """Says which jobs keep running after Ctrl-C; a second one within two seconds asks whether to cancel them."""
    try:
        yield
    except KeyboardInterrupt:
        detached = launch.open_submissions() if launch.is_detached else []
        if detached:
            log.warning(
                "exca: detached: %s. The jobs keep running; the same command returns to them. "
                "Press Ctrl-C again within %g s to cancel them",
                "; ".join(detached),
                _AGAIN_S,
            )
            _ask_whether_to_cancel(launch)
            raise SystemExit(130) from None
        raise


def _ask_whether_to_cancel(launch: Launch) -> None:
    try:
        time.sleep(_AGAIN_S)
    except KeyboardInterrupt:
        print("\nCancel the jobs of this launch? [y/N] ", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            if sys.stdin.readline().strip().lower() in ("y", "yes"):
                log.warning("exca: %s cancelled", count_noun(launch.cancel_all(), "task is", "tasks are"))
