"""The console messages of a batch: the plan, failures as they happen, and the end."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import typing as tp
from collections import Counter, defaultdict
from pathlib import Path

from hydra_exca import paths
from hydra_exca.identity.redaction import Redaction
from hydra_exca.identity.uid import Identity
from hydra_exca.launch import actions
from hydra_exca.launch.code_changes import CodeChanges
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.launch.results import Result
from hydra_exca.store import CacheFolder
from hydra_exca.store.cache_folder import MOST_COUNTED
from hydra_exca.text import count_noun, relative_path

from . import failure_messages, tasks
from .compose import hydra_private
from .options import SweepOptions
from .script_identity import ScriptIdentity
from .tasks import SweepTask

log = logging.getLogger("exca.sweep")
_OTHER_VERSIONS = "results of other versions"  # the key of a message that is given once
_FAILED_EARLIER = "failed earlier (not run again)"
_ENDINGS = ("reused", _FAILED_EARLIER, "joined", "computed", "failed", "submitted", "not run")
_OF_SCRIPT = "what the script knows"
_MOST_COMPARED = 5000  # entries that a launch compares by name, which takes as long as it may take to say so
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


def say_cache_of_project(batch: tp.Sequence[SweepTask], folder: Path, typed: Path) -> None:
    """Says that the project of the script has results of these tasks where a launch from another folder has none.

    ``folder`` is the cache of the launch, ``typed`` its option: one that does not depend on where the launch starts is
    meant so.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    if not batch or typed.is_absolute() or folder.exists() or main is None:
        return
    identity = batch[0].identity
    caches = [parent / typed for parent in Path(os.path.abspath(main)).parents]
    for cache in caches:
        if paths.factory_folder(cache, identity.factory, identity.version).is_dir():
            log.warning(
                "exca: %s has results of %s, which this launch does not use, as it starts in another folder, with the "
                "new cache %s. To use them: hydra.launcher.folder=%s",
                *(cache, identity.factory, folder, cache),
            )
            return


def say_plan(
    lookups: tp.Sequence[LookupResult],
    cluster: str,
    folder: CacheFolder,
    said: set[str],
    older_identities: tp.Callable[[Identity], tp.Iterable[Identity]],
) -> None:
    """Says what is reused, joined and to be run, unless all is stored.

    If anything is to be run, says also what other versions hold, and what was stored under their ``older_identities``.
    ``said`` has the messages that are given once.
    """
    distinct = _distinct(lookups)
    to_run = _count_missing(distinct)
    joined = sum(lookup.action is actions.Action.JOIN for lookup in distinct)
    if to_run + joined:
        earlier = sum(lookup.action is actions.Action.RAISE for lookup in distinct)
        counts = {
            "reused": len(distinct) - to_run - joined - earlier,
            _FAILED_EARLIER: earlier,
            "joined": joined,
            f"to run on {cluster}": to_run,
        }
        plan = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        log.info("exca: %s: %s", _count_tasks(lookups, distinct), plan)
    if to_run and _OTHER_VERSIONS not in said:
        said.add(_OTHER_VERSIONS)
        for line in (*_unused_versions(distinct, folder), _why_nothing_is_reused(distinct, folder.path)):
            if line is not None:
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


def say_end(results: tp.Sequence[Result], seconds: float, sweep_folder: Path) -> list[Result]:
    """How the tasks ended and where their results are; returns those that failed, each once."""
    distinct = list({result.task.identity.key: result for result in results}.values())
    failed = [result for result in distinct if result.error is not None and result.how != "not run"]
    log.info("exca: %s: %s in %.1f s", _count_tasks(results, distinct), _count_endings(distinct), seconds)
    folders = dict.fromkeys(result.entry.factory_folder for result in results if result.entry_or_none is not None)
    if folders:
        results_in = ", ".join(relative_path(Path(folder)) for folder in folders)
        log.info("exca: results in %s, outputs in %s", results_in, relative_path(sweep_folder))
    failure_messages.say_failures(failed)
    return failed


def _count_endings(distinct: tp.Iterable[Result]) -> str:
    """How the tasks ended, in words; each counts once."""
    counts = Counter(map(_ending, distinct))
    return ", ".join(f"{counts[ending]} {ending}" for ending in _ENDINGS if counts[ending])


def _ending(result: Result) -> str:
    if result.error is not None and result.how != "not run":
        return _FAILED_EARLIER if result.how == "cached" else "failed"
    if result.is_open and result.how == "run":
        return "submitted"
    return {"cached": "reused", "run": "computed"}.get(result.how, result.how)


def say_dry_run(
    batch: tp.Sequence[SweepTask],
    lookups: tp.Sequence[LookupResult],
    chosen: SweepOptions,
    code_changes: CodeChanges | None,
) -> list[str]:
    """Lists what would be done; returns it in a few words, one text for each job."""
    from hydra_exca.catalog.reuse import ReuseExplainer  # a sweep that finds everything starts without it

    lines, explainer = [], ReuseExplainer(chosen.folder, code_changes)
    for task, lookup in zip(batch, lookups, strict=True):
        overrides = " ".join(task.shown)
        would = f"refused: {lookup.problem}" if lookup.problem else f"would {lookup.action}"
        why = explainer.explain(lookup) if not lookup.problem and _is_to_run(lookup) else None
        would += f"; {why}" if why else ""
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
    return sum(map(_is_to_run, distinct))


def _is_to_run(lookup: LookupResult) -> bool:
    return lookup.action in (actions.Action.RUN, actions.Action.CANCEL_AND_RUN)


def _why_nothing_is_reused(distinct: tp.Sequence[LookupResult], folder: Path) -> str | None:
    """What differs from the nearest stored entry, if none of the tasks was ever stored or begun."""
    if any(lookup.entry is not None for lookup in distinct):
        return None
    from hydra_exca.catalog.reuse import ReuseExplainer  # a sweep that finds everything starts without it

    identity, explainer = distinct[0].identity, ReuseExplainer(folder)
    if explainer.has_more_than(_MOST_COMPARED, identity.factory):
        return "nothing stored is reused: hydra.launcher.dry_run=true says what differs"
    nearest = explainer.find_nearest(identity)
    return None if nearest is None else f"nothing stored is reused; the nearest to the first task is {nearest}"


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
