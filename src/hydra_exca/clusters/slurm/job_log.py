"""What Slurm, its shell and srun write to the log of a job: why it ended. The tasks' own output is elsewhere."""

from __future__ import annotations

import dataclasses
import re
import signal
from pathlib import Path

from hydra_exca import files
from hydra_exca.clusters.base import DISK_ERROR, DISK_FULL, JobEnd, JobReport, JobState
from hydra_exca.errors import CorruptEntryError

RESTART = "exca: Slurm starts the job again"
BEGUN = "exca: the tasks begin again"
_MOST_BYTES = 1 << 14
_MB = 1 << 20  # which Slurm's M stands for
_SIGNALS = {signal.strsignal(number): number.name for number in signal.Signals}
_REQUEUES = {"PREEMPTION": "preempted", "NODE FAILURE": "lost with their node", "JOB REQUEUE": "requeued"}
_REQUEUE = re.compile(rf"CANCELLED AT \S+ DUE TO ({'|'.join(_REQUEUES)})")
_MEMORY = re.compile(r"exceeded memory limit \((\d+) > (\d+)\)|\boom[-_ ]kill event", re.IGNORECASE)
_END = re.compile(
    r"^(?:srun: error: \S+: tasks? [\d,-]+: |.*slurm_script: line \d+: +\d+ )"
    r"(.+?)(?: \(core dumped\))?(?: {2,}.*)?$",
    re.MULTILINE,
)
_CODE = re.compile(r"Exited with exit code (\d+)")


def print_restart(text: str) -> str:
    """A shell command that writes ``text`` to the log of a job, if Slurm has started the job before."""
    return f'[ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] || echo "{text}" >&2'


def remove_empty_logs() -> list[str]:
    """Shell commands that remove the logs of a job that went well and printed nothing, and keep its exit status."""
    job = '"$SUBMITIT_FOLDER/${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"'
    return [
        "exca_status=$?",
        f'[ $exca_status != 0 ] || for exca_log in {job}_*_log.*; do [ -s "$exca_log" ] || rm -f -- "$exca_log"; done',
        "exit $exca_status",
    ]


def find_log(folder: Path, job: str) -> Path:
    """The log of a job; with two logs, the one for standard error, which has Slurm's messages."""
    stdout, stderr = (folder / f"{job}_0_log.{end}" for end in ("out", "err"))
    return stderr if stderr.exists() else stdout


def add_reasons(report: JobReport, folder: Path) -> JobReport:
    """The report on a job that has ended, or waits to start again, with what its log says about that."""
    if report.job is None or report.state not in (JobState.ENDED, JobState.PENDING):
        return report
    log = find_log(folder, report.job)
    try:
        text = files.read_end(log, _MOST_BYTES)
    except (OSError, CorruptEntryError):
        return report
    if report.state is JobState.PENDING:
        requeues = _REQUEUE.findall(text)
        return dataclasses.replace(report, words=_REQUEUES[requeues[-1]]) if requeues else report
    _, is_restart, last = text.rpartition(f"{RESTART}\n")
    never_began = bool(is_restart) and BEGUN not in last
    output = last.replace(f"{BEGUN}\n", "")
    return _explain(dataclasses.replace(report, log=log, slurm_output=output, never_began=never_began), output)


def _explain(report: JobReport, text: str) -> JobReport:
    """The report with the end and the words that the messages in the log of the job mean."""
    memory, end = _MEMORY.search(text), _END.search(text)
    is_failed = report.reason.startswith("FAILED")
    if memory is not None and (is_failed or report.end.is_exhausted):
        used = f": {int(memory[1]) // _MB} of {int(memory[2]) // _MB} MB" if memory[1] else ""
        given = {"mem_gb": int(memory[2]) / (_MB << 10)} if memory[1] else {}
        report = dataclasses.replace(report, reason="OUT_OF_MEMORY", end=JobEnd.OUT_OF_MEMORY, given=given)
        return dataclasses.replace(report, words=f"out of memory{used}")
    if end is None or not is_failed or report.end is not JobEnd.EXITED:
        return report
    code = _CODE.fullmatch(end[1])
    if code:
        return with_exit_code(report, int(code[1]))
    return dataclasses.replace(report, words=f"killed by {_SIGNALS[end[1]]}" if end[1] in _SIGNALS else end[1])


def with_exit_code(report: JobReport, code: int) -> JobReport:
    """The report on a job that has ended by itself, with what its exit code means."""
    if code == DISK_ERROR:
        return dataclasses.replace(report, end=JobEnd.REMOVED, words=DISK_FULL)
    return dataclasses.replace(report, words=f"exit code {code}")
