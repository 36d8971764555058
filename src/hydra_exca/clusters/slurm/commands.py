"""Slurm's commands: for each, a pure function that builds it and a pure function that parses its output."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as tp

from hydra_exca import files, paths
from hydra_exca.clusters.base import JobEnd, JobReport, JobState

_FORGOTTEN = "FORGOTTEN"  # our own word: the controller no longer knows the job
# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_ENDS = {
    _FORGOTTEN: (JobEnd.VANISHED, "Slurm does not know it any more"),
    "BOOT_FAIL": (JobEnd.LOST, "its node did not boot"),
    "CANCELLED": (JobEnd.REMOVED, "it was cancelled"),
    "COMPLETED": (JobEnd.EXITED, "it exited without an error"),
    "DEADLINE": (JobEnd.PAST_DEADLINE, "it was not done by its deadline"),
    "FAILED": (JobEnd.EXITED, "it exited with an error"),
    "LAUNCH_FAILED": (JobEnd.LOST, "its node could not start it"),
    "NODE_FAIL": (JobEnd.LOST, "its node failed"),
    "OUT_OF_MEMORY": (JobEnd.OUT_OF_MEMORY, "out of memory"),
    "PREEMPTED": (JobEnd.LOST, "a job of higher priority took its place, and Slurm does not start it again"),
    "TIMEOUT": (JobEnd.OUT_OF_TIME, "it reached its time limit"),
}
ENDED = set(_ENDS)
# whatever its state says, a job that ended for these reasons did not end by itself
# https://slurm.schedmd.com/job_reason_codes.html
_REMOVED = {
    "BadConstraints": (JobEnd.REMOVED, "no node can give it what it asks for"),
    "DependencyNeverSatisfied": (JobEnd.REMOVED, "a job that it depends on did not end as it must"),
    "InvalidAccount": (JobEnd.REMOVED, "its account is not valid"),
    "InvalidQOS": (JobEnd.REMOVED, "its quality of service is not valid"),
    "JobLaunchFailure": (JobEnd.LOST, "its node could not start it"),
    "NodeDown": (JobEnd.LOST, "its node is down"),
    "SystemFailure": (JobEnd.LOST, "Slurm or its node had a failure"),
}
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
# with these reasons a job waits for ever unless somebody acts
STUCK = re.compile(
    r"Partition(TimeLimit|Config|NodeLimit|Down|Inactive)|ReqNodeNotAvail|\w+NotAllowed"
    r"|DependencyNeverSatisfied|QOSMax\w+|AssocMax\w+|requeued held|held state|Invalid\w+|BadConstraints|JobHeld\w+"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One job, or one task of an array, as Slurm lists it. ``command`` identifies its launch."""

    job: str
    state: str
    reason: str
    command: str
    limit: str = ""  # of its time

    @property
    def place(self) -> tuple[str, int] | None:
        """The launch token and the number of the job in that launch; None for any other job."""
        place = paths.parse_script_path(self.command)
        return None if place is None else (place[0], place[1] + array_index(self.job))

    def report(self) -> JobReport:
        state = self.state.split()[0].rstrip("+")  # "CANCELLED by 1000"
        if state in _WAITING:
            return JobReport(JobState.PENDING, self.reason, stuck=bool(STUCK.search(self.reason)), job=self.job)
        if state not in ENDED:
            return JobReport(JobState.RUNNING, self.reason, job=self.job)
        (end, words), given = _ENDS[state], dict[str, float]()
        if self.reason in _REMOVED:
            (end, words), state = _REMOVED[self.reason], f"{state}: {self.reason}"
        elif (user := self.state.partition(" by ")[2]).isdecimal():
            words = f"{files.user_name(int(user))} cancelled it"
        elif state == "TIMEOUT" and (seconds := read_duration(self.limit)) is not None:
            words, given = f"{words} of {seconds / 60:g} min", {"timeout_min": seconds / 60}
        return JobReport(JobState.ENDED, state, end, job=self.job, words=words, given=given)


def read_duration(text: str) -> float | None:
    """The seconds of a duration as Slurm prints it, None if it does not know.

    >>> read_duration("1-02:03:04"), read_duration("1:30"), read_duration("UNLIMITED"), read_duration("INVALID")
    (93784.0, 90.0, inf, None)
    """
    if text.strip() == "UNLIMITED":
        return float("inf")
    days, _, clock = text.strip().rpartition("-")
    numbers = [days or "0", *(["0", "0", *clock.split(":")][-3:])]
    if not clock or not all(number.isdecimal() for number in numbers):
        return None
    day, hour, minute, second = map(int, numbers)
    return float(((day * 24 + hour) * 60 + minute) * 60 + second)


def on_cluster(command: list[str], cluster: str | None) -> list[str]:
    """The command for another cluster of a federation.

    >>> on_cluster(["squeue", "-h"], "other")
    ['squeue', '-M', 'other', '-h']
    """
    return command if cluster is None else [command[0], "-M", cluster, *command[1:]]


def read_submitted(output: str) -> tuple[str, str | None] | None:
    """The id of the submitted job, and the cluster of a federation that has it; None if sbatch does not say so.

    A wrapper of sbatch may print lines of its own.

    >>> read_submitted("Welcome!\\n12;other\\n"), read_submitted("12\\n"), read_submitted("Submitted batch job 12")
    (('12', 'other'), ('12', None), None)
    """
    answers = [match for line in output.splitlines() if (match := _SUBMITTED.fullmatch(line.strip()))]
    return (answers[0][1], answers[0][2]) if len(answers) == 1 else None


_SUBMITTED = re.compile(r"(\d+)(?:;([^\s;]+))?")


def ping_command() -> list[str]:
    return ["scontrol", "ping"]


def queue_command(jobs: tp.Collection[str], users: tp.Collection[str]) -> list[str]:
    """Asks the controller for these jobs, or for all jobs of these users if ids are not known.

    ``-t all`` also lists those that ended within MinJobAge (300 s by default), at once, where sacct lags.
    """
    chosen = ["-u", ",".join(sorted(users))] if users else ["-j", ",".join(sorted(jobs))]
    return ["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%l|%o", *chosen]


def accounting_command(jobs: tp.Collection[str], users: tp.Collection[str], since: float) -> list[str]:
    """Asks the accounting, which remembers jobs for longer. ``since`` is in seconds since the epoch."""
    start = datetime.datetime.fromtimestamp(since - 60).strftime("%Y-%m-%dT%H:%M:%S")
    chosen = ["-u", ",".join(sorted(users)), "-S", start] if users else ["-j", ",".join(sorted(jobs))]
    return ["sacct", "-X", "-n", "-P", "-o", "JobID,State,Reason,Timelimit,SubmitLine", *chosen]


def show_command(job: str) -> list[str]:
    """Asks the controller for a job by any of its ids: a task of an array has a plain id besides ``12_3``."""
    return ["scontrol", "show", "job", "-o", job]


def read_shown(output: str) -> list[Row]:
    """The rows of `show_command`, one for each task of an array."""
    rows = []
    for line in output.splitlines():
        ids, details = _IDS.match(line), _DETAILS.match(line)
        if ids and details:
            raw, array, tasks = ids.groups()
            job = raw if array is None else f"{array}_{tasks}" if tasks.isdecimal() else f"{array}_[{tasks}]"
            rows += [Row(single, details[1], details[2], details[3]) for single in expand_ids(job)]
    return rows


def read_exit_code(shown: str) -> int | None:
    """The exit code of one job in the output of `show_command`; None if it has none, or did not end by itself.

    >>> read_exit_code("JobId=12 ArrayTaskId=3 JobState=FAILED ExitCode=74:0 DerivedExitCode=0:0")
    74
    """
    codes = re.findall(r" ExitCode=(\d+):0 ", shown)
    return int(codes[0]) or None if len(codes) == 1 else None


_IDS = re.compile(r"JobId=(\d+)(?: ArrayJobId=(\d+) ArrayTaskId=(\S+))? ")
# greedy up to the last match: the job's name comes before, and can hold anything
_DETAILS = re.compile(r".* JobState=(\S+) Reason=(.*?) Dependency=.* Command=(.*?)(?: SubmitLine=.*)? WorkDir=")


def cancel_command(jobs: tp.Iterable[str], pending: bool = False) -> list[str]:
    """Cancels jobs, with ``pending`` only those that have not started."""
    return ["scancel", *(["-t", "PENDING"] if pending else []), *sorted(jobs)]


def throttle_command(array: str, most: int) -> list[str]:
    """Allows ``most`` jobs of an array to run at a time."""
    return ["scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={most}"]


def configuration_command() -> list[str]:
    return ["scontrol", "show", "config"]


def read_configuration(output: str) -> dict[str, str]:
    """The names and values of `configuration_command`."""
    pairs = (line.partition("=") for line in output.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def partitions_command() -> list[str]:
    return ["scontrol", "show", "partition", "-o"]


def read_partitions(output: str) -> list[dict[str, str]]:
    """The settings of each partition.

    >>> read_partitions("PartitionName=main AllowGroups=ALL Default=YES DefMemPerCPU=2000")[0]["DefMemPerCPU"]
    '2000'
    """
    lines = [dict(_SETTING.findall(line)) for line in output.splitlines()]
    return [settings for settings in lines if "PartitionName" in settings]


_SETTING = re.compile(r"(\w+)=(\S*)")


def count_command(user: str) -> list[str]:
    """Lists the pending and running jobs of a user, one per line."""
    return ["squeue", "-h", "-r", "-u", user, "-o", "%i"]


def limits_commands(user: str) -> list[list[str]]:
    """Two commands that ask how many jobs a user may have submitted: by association, by quality of service."""
    show = ["sacctmgr", "-n", "-P", "show"]
    associations = "Cluster,Account,Partition,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs"
    return [
        [*show, "user", user, "withassoc", f"format=DefaultAccount,{associations}"],
        [*show, "qos", "format=Name,MaxSubmitJobsPerUser,GrpSubmitJobs"],
    ]


def read_limit(associations: str, qualities: str, cluster: str, options: tp.Mapping[str, tp.Any]) -> int | None:
    """The lowest limit that the output of `limits_commands` sets on jobs with these options, None for no limit.

    A limit of a whole group counts as the user's own.
    """
    limits, quality = [], options.get("qos")
    for line in associations.splitlines():
        default, where, account, partition, default_quality, *numbers = line.split("|")
        asked = cluster, options.get("account") or default
        if asked == (where, account) and partition in ("", options.get("partition")):
            limits += numbers
            quality = quality or default_quality
    numbers_of = {name: numbers for name, *numbers in (line.split("|") for line in qualities.splitlines())}
    limits += numbers_of.get(quality or "normal", [])
    return min(map(int, filter(str.isdecimal, limits)), default=None)


def read_rows(output: str) -> list[Row]:
    """The rows of `queue_command`, one for each task of an array."""
    rows = []
    for line in output.splitlines():
        if line.count("|") >= 4:
            job, state, reason, limit, command = line.split("|", 4)
            rows += [Row(single, state, reason, command, limit) for single in expand_ids(job)]
    return rows


def read_accounts(output: str) -> list[Row]:
    """The rows of `accounting_command`, one for each task of an array.

    When the controller comes back from a crash, the accounting lists what it has forgotten as cancelled, by nobody.
    Jobs that can never start are listed in the same way; their reason tells the two apart.
    """
    rows = read_rows(output)
    lost = [row.state == "CANCELLED" and not STUCK.search(row.reason) for row in rows]
    return [dataclasses.replace(row, state=_FORGOTTEN) if gone else row for row, gone in zip(rows, lost, strict=True)]


def expand_ids(job: str) -> list[str]:
    """The ids of the single jobs in the row of an array.

    >>> expand_ids("12_[1-2,7%4]")
    ['12_1', '12_2', '12_7']
    """
    match = re.fullmatch(r"(\d+)_\[([\d,\-]+)(\.\.\.)?(?:%\d+)?\]", job)
    if not match:
        return [job] if re.fullmatch(r"\d+(_\d+)?", job) else []
    array, ranges, cut = match.groups()
    parts = ranges.split(",")
    if cut:  # cut off after 64 characters (SLURM_BITSTR_LEN): the last number may lack digits
        parts.pop()
    indices: list[int] = []
    for part in parts:
        first, _, last = part.partition("-")
        indices += range(int(first), int(last or first) + 1)
    return [f"{array}_{index}" for index in indices]


def array_id(job: str | None) -> str:
    """The id of a job's array, its own if it is not in one, "" for None."""
    return (job or "").partition("_")[0]


def array_index(job: str) -> int:
    """A job's index in its array, 0 for a job that is not in one."""
    return int(job.partition("_")[2] or 0)
