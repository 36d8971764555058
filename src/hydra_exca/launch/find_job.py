"""find_slurm_job: from the id of a job to the entry that it fills, by the records of launches, entries and Slurm."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters.slurm import query
from hydra_exca.errors import CacheError, ConfigError
from hydra_exca.store import Entry, launches

from .slurm_job import SlurmJob


def find_slurm_job(*, job_id: str | int, folder: str | Path | None = None) -> SlurmJob | None:
    """The task that a job computes, with its configuration and logs.

    ``job_id`` is that of squeue, of an element of an array (``123_4``) too; with a ``folder`` it may be the process id
    of a local job. ``folder`` is a cache folder, or one above or below it; without it Slurm is asked which launch the
    job is of, as long as it remembers the job.

    None if no launch that is recorded in the folder has such a job. Without a folder ConfigError instead, and in
    any case if the id is that of an array with several jobs. Ids come again when a scheduler is set up anew, and those
    of processes sooner: of several launches that know one, it is the newest that is meant.
    """
    asked = str(job_id).strip()
    if not is_job_id(asked):
        raise ConfigError(f"job_id={job_id!r} is not the id of one job: write it like 123, or 123_4")
    if folder is None:
        return _find_by_slurm(asked)
    place = Path(folder).expanduser().absolute()
    if not place.is_dir():
        raise ConfigError(f"there is no folder {place} to look for job {asked} in")
    return _find_in_folder(place, asked)


def is_job_id(text: str) -> bool:
    """Whether it can be the id of a job."""
    return bool(re.fullmatch(r"\d+(_\d+)?", text))


def _find_in_folder(folder: Path, asked: str) -> SlurmJob | None:
    launch_folders = _launch_folders(folder)
    for launch in launch_folders:
        job = _recorded_job(launch, asked)
        if job is not None:
            return job
    rows = query.query_job(asked) or [] if launch_folders else []
    for launch in launch_folders:
        jobs = {row.place[1]: row.job for row in rows if row.place is not None and row.place[0] == launch.name}
        if jobs:
            return _make_job(launch, *_only_job(asked, jobs))
    return next(filter(None, (_find_process(launch, asked) for launch in launch_folders)), None)


def _find_process(launch: Path, asked: str) -> SlurmJob | None:
    """The local job of a launch whose process has this id, by what the entries say of who computes them."""
    record = launches.read_record(launch)
    for position, name in enumerate(record.get("entries", ()) if record.get("cluster") == "local" else ()):
        entry = Entry(launch.parent.parent / name)
        sources = entry.readable_outcome(), entry.current_claim()
        if any(source is not None and (source.token, source.job) == (launch.name, asked) for source in sources):
            number = next(number for number, job in enumerate(record["tasks"]) if position in job)
            return SlurmJob(asked, entry.path, launch, number, launch, "local")
    return None


def _find_by_slurm(asked: str) -> SlurmJob:
    rows = query.query_job(asked)
    advice = "give the folder of the results: find_slurm_job(job_id=..., folder=...)"
    if not rows:
        known = "Slurm does not answer here" if rows is None else f"Slurm knows no job {asked} (any more)"
        raise ConfigError(f"{known}; {advice}")
    match = _LAUNCH.search(rows[0].command)
    jobs = {row.place[1]: row.job for row in rows if row.place is not None}
    if match is None or not jobs:
        raise ConfigError(f"job {asked} was not submitted by hydra_exca: Slurm says it runs {rows[0].command!r}")
    launch = Path(match[0])
    if not (launch / paths.LAUNCH_RECORD).is_file():
        raise ConfigError(f"job {asked} was submitted from {launch}, and no launch is recorded there; {advice}")
    return _make_job(launch, *_only_job(asked, jobs))


_LAUNCH = re.compile(rf"/.*?/{launches.TOKEN_PATTERN}(?=/)")
"""The folder of a launch, in the command that Slurm reports of a job."""


def _launch_folders(folder: Path) -> list[Path]:
    """The launches recorded in the cache folders below, at and above a folder, the newest first."""
    caches = [parent for parent in folder.parents if (parent / paths.LAUNCHES).is_dir()][:1]
    for place, folders, files in os.walk(folder):
        if paths.LAUNCHES in folders:
            caches.append(Path(place))
            folders[:] = [name for name in folders if name not in (paths.LAUNCHES, paths.CODE)]
        if paths.NAMES in folders or _are_of_entry(files):
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    folders_of_all = [launch for cache in caches for launch in (cache / paths.LAUNCHES).iterdir()]
    return sorted(folders_of_all, key=lambda launch: launch.name, reverse=True)


def _are_of_entry(files: list[str]) -> bool:
    return paths.OUTCOME in files or any(paths.claim_number(name) is not None for name in files)


def _recorded_job(launch: Path, asked: str) -> SlurmJob | None:
    """The job of a launch, by the ids in the launch's record."""
    record = launches.read_record(launch)
    jobs = {int(number): str(job) for number, job in record.get("jobs", {}).items()}
    jobs = {number: job for number, job in jobs.items() if job == asked or job.startswith(f"{asked}_")}
    return _make_job(launch, *_only_job(asked, jobs)) if record.get("cluster") == "slurm" and jobs else None


def _make_job(launch: Path, number: int, job: str) -> SlurmJob:
    record = launches.read_record(launch)
    try:
        entries = [record["entries"][position] for position in record["tasks"][number]]
    except LookupError:
        raise CacheError(f"{launch / paths.LAUNCH_RECORD} cannot be read, or has no job {job}") from None
    cache = launch.parent.parent
    if len(entries) > 1:
        shown = "".join(f"\n  {cache / entry}" for entry in entries[:10])
        raise ConfigError(f"job {job} computes {len(entries)} tasks, which have results and logs of their own:{shown}")
    return SlurmJob(job, cache / entries[0], launch, number, Path(record.get("logs") or launch))


def _only_job(asked: str, jobs: dict[int, str]) -> tuple[int, str]:
    """Number and id of the one job; raises ConfigError if there are several."""
    if len(jobs) > 1:
        shown = ", ".join(jobs[number] for number in sorted(jobs)[:10])
        raise ConfigError(f"{asked} is an array of {len(jobs)} jobs; ask for one of them: {shown}")
    return next(iter(jobs.items()))
