"""Slurm's own commands: for each a function that builds it and one that reads what it prints, both pure."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as tp

from .base import Report, State

# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
}
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
# with these a job waits for ever unless somebody acts
STUCK = re.compile(
    r"PartitionTimeLimit|DependencyNeverSatisfied|QOSMax\w+|AssocMax\w+|held state|Invalid\w+|BadConstraints|JobHeld\w+"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One job, or one task of an array, as a Slurm command lists it. ``command`` tells which launch it is of."""

    job: str
    state: str
    reason: str
    command: str

    def report(self) -> Report:
        state = self.state.split()[0].rstrip("+")  # "CANCELLED by 1000"
        if state in _WAITING:
            return Report(State.PENDING, self.reason, stuck=bool(STUCK.search(self.reason)), job=self.job)
        if state not in _ENDED:
            return Report(State.RUNNING, self.reason, job=self.job)
        reason = "" if self.reason in ("", "None", state) else f" ({self.reason})"
        return Report(State.ENDED, f"{self.state}{reason}", job=self.job)


def ping_command() -> list[str]:
    return ["scontrol", "ping"]


def queue_command(jobs: tp.Collection[str], users: tp.Collection[str]) -> list[str]:
    """Asks the controller: for these jobs, or for all of these users when some job's id is not known.

    ``-t all`` also lists those that ended within MinJobAge (300 s by default), at once, where sacct lags.
    """
    chosen = ["-u", ",".join(sorted(users))] if users else ["-j", ",".join(sorted(jobs))]
    return ["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%o", *chosen]


def accounting_command(jobs: tp.Collection[str], users: tp.Collection[str], since: float) -> list[str]:
    """Asks the accounting, which remembers longer. ``since`` is in seconds since the epoch."""
    start = datetime.datetime.fromtimestamp(since - 60).strftime("%Y-%m-%dT%H:%M:%S")
    chosen = ["-u", ",".join(sorted(users)), "-S", start] if users else ["-j", ",".join(sorted(jobs))]
    return ["sacct", "-X", "-n", "-P", "-o", "JobID,State,Reason,SubmitLine", *chosen]


def show_command(job: str) -> list[str]:
    """Asks the controller for a job by any of its ids: a task of an array has one of its own besides ``12_3``."""
    return ["scontrol", "show", "job", "-o", job]


def read_shown(output: str) -> list[Row]:
    """The rows of `show_command`, one for each task of an array."""
    rows = []
    for line in output.splitlines():
        ids, told = _IDS.match(line), _TOLD.match(line)
        if ids and told:
            raw, array, tasks = ids.groups()
            job = raw if array is None else f"{array}_{tasks}" if tasks.isdecimal() else f"{array}_[{tasks}]"
            rows += [Row(single, told[1], told[2], told[3]) for single in expand(job)]
    return rows


_IDS = re.compile(r"JobId=(\d+)(?: ArrayJobId=(\d+) ArrayTaskId=(\S+))? ")
# the last of them: a job's name comes before, and can hold anything
_TOLD = re.compile(r".* JobState=(\S+) Reason=(.*?) Dependency=.* Command=(.*?)(?: SubmitLine=.*)? WorkDir=")


def cancel_command(job: str) -> list[str]:
    return ["scancel", job]


def read_rows(output: str) -> list[Row]:
    """The rows of `queue_command` and of `accounting_command`, one for each task of an array."""
    rows = []
    for line in output.splitlines():
        if line.count("|") >= 3:
            job, state, reason, command = line.split("|", 3)
            rows += [Row(single, state, reason, command) for single in expand(job)]
    return rows


def expand(job: str) -> list[str]:
    """The single jobs that an array's row stands for.

    >>> expand("12_[1-2,7%4]")
    ['12_1', '12_2', '12_7']
    """
    match = re.fullmatch(r"(\d+)_\[([\d,\-]+)(\.\.\.)?(?:%\d+)?\]", job)
    if not match:
        return [job] if re.fullmatch(r"\d+(_\d+)?", job) else []
    array, ranges, cut = match.groups()
    parts = ranges.split(",")
    if cut:  # after 64 characters (SLURM_BITSTR_LEN): the last number may lack digits
        parts.pop()
    indices: list[int] = []
    for part in parts:
        first, _, last = part.partition("-")
        indices += range(int(first), int(last or first) + 1)
    return [f"{array}_{index}" for index in indices]


def position(job: str) -> int:
    """Where in its launch a job stands: its index in the array, 0 for a job that is not in one."""
    return int(job.partition("_")[2] or 0)
