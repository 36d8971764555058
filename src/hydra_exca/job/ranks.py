"""The ranks of a Slurm job of several processes: all run the program, and the value of the first one counts.

They communicate by files in the folder of their launch: nothing else is sure to work between nodes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.clusters import process
from hydra_exca.code import observer
from hydra_exca.errors import CorruptEntryError
from hydra_exca.polling import Pause
from hydra_exca.store import Entry, Outcome, check_error

from .attempt import (
    Attempt,
    Compute,
    LoadedProgram,
    current_job_id,
    is_wanted,
    log_error,
    make_outcome,
    redirect_to_log,
)
from .error_report import RankError, describe_error
from .payload import read_part
from .signals import RunningJob, SignalHandlers

log = logging.getLogger("exca.worker")
_PATIENCE_S = 10.0  # for the first rank to end after another one has raised


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process is rank number ``rank`` of ``count``. ``start`` counts the starts of a requeued job."""

    rank: int
    count: int
    folder: Path
    position: int
    start: str

    @classmethod
    def of_this_process(cls, launch: Path, position: int) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        rank, count = int(os.environ.get("SLURM_PROCID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
        return cls(rank, count, launch, position, os.environ.get("SLURM_RESTART_COUNT", "0"))

    @property
    def is_requeued(self) -> bool:
        return self.start != "0"

    def acquire_decision(self) -> bool:
        """True for the first rank that calls this: it alone decides how the task ended."""
        try:
            os.close(os.open(paths.rank_decision(self.folder, self.position, self.start), os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            return False

    def used_by_others(self) -> tuple[Path, ...]:
        """Where the other ranks share what they use of the code."""
        return tuple(self._used_by(rank) for rank in range(1, self.count))

    def share_uses(self) -> None:
        """Shares what this rank uses of the code, from now on and so far."""
        observer.share_with_first_rank(str(self._used_by(self.rank)))

    def _used_by(self, rank: int) -> Path:
        return paths.rank_uses(self.folder, self.position, self.start, rank)

    def write_error(self, error: dict[str, tp.Any]) -> None:
        """Writes the error of this rank for the first rank."""
        path = paths.rank_error(self.folder, self.position, self.start, self.rank)
        files.write_file(path, checksums.dump_record(error), durable=False)

    def read_error(self) -> dict[str, tp.Any] | None:
        """Reads the earliest error of another rank, None if there is none."""
        ranks = (paths.rank_error(self.folder, self.position, self.start, rank) for rank in range(1, self.count))
        errors = sorted((path for path in ranks if path.exists()), key=lambda path: path.stat().st_mtime_ns)
        return next((error for error in map(_read_error, errors) if error is not None), None)


def _read_error(path: Path) -> dict[str, tp.Any] | None:
    try:
        error = records.read_record(path)
        with records.damage_named(path):
            check_error(error)
        return error
    except CorruptEntryError as damage:
        log.warning("%s; what that rank raised is not known", damage)
        return None


def as_first_rank(ranks: Ranks, compute: Compute) -> Compute:
    """Wraps ``compute`` for the first rank. Its value counts, unless another rank raises before it is there."""

    def compute_first(attempt: Attempt) -> tp.Any:
        try:
            value = compute(attempt)
        except Exception as raised:
            error = ranks.read_error()
            if error is None:
                raise
            also = f"\nThen the first rank raised:\n{describe_error(raised)['traceback']}"
            raise RankError({**error, "traceback": error["traceback"] + also}) from raised
        error = ranks.read_error()
        if not ranks.acquire_decision() and error is not None:
            raise RankError(error)
        if error is not None:
            log.warning("%s; the first rank's value counts\n%s", error["message"], error["traceback"])
        return value

    return compute_first


def run_secondary_rank(ranks: Ranks, job: RunningJob) -> None:
    """Runs the program in a rank other than the first; its value is not used."""
    handlers = SignalHandlers(job, ignore=True)
    handlers.install()
    part = read_part(job.launch, job.payload, ranks.position)
    entry, started = Entry(part.entry), time.time()
    owner = entry.current_claim()
    if owner is None or not is_wanted(owner, job.launch.name) or (ranks.is_requeued and entry.outcome() is not None):
        log.warning("%s is not computed here: another launch has it, or it is done", entry.uid)
        return
    claim = dataclasses.replace(owner, job=current_job_id(owner.cluster), owner=process.describe_process())
    attempt = Attempt(entry, claim, code=job.payload.all_code)
    redirect_to_log(attempt, job.payload, ranks.rank)

    def ready() -> None:
        handlers.install()
        ranks.share_uses()

    try:
        LoadedProgram(job.launch, job.payload, ready).compute_function(part, ranks.position)(attempt)
    except BaseException as raised:
        if isinstance(raised, KeyboardInterrupt) or (isinstance(raised, SystemExit) and not raised.code):
            raise
        error = log_error(attempt, raised)
        error["message"] = f"{error['message']} (in rank {ranks.rank} of {ranks.count})"
        ranks.write_error(error)
        if _fail_for_all(ranks, attempt, make_outcome(attempt, part.identity, started, error=error)):
            raise SystemExit(1) from None  # its log has the traceback
        log.warning("this rank raised; the first rank has ended")
    finally:
        ranks.share_uses()  # also what processes have reported that it has started


def _fail_for_all(ranks: Ranks, attempt: Attempt, outcome: Outcome) -> bool:
    """Waits a moment for the first rank to end by itself. If it does not, the task fails, and this returns True.

    Once the first rank has a value, it may take any time to store it.
    """
    entry, deadline, decided, pause = attempt.entry, time.monotonic() + _PATIENCE_S, False, Pause()
    while entry.outcome() is None:
        decided = decided or (time.monotonic() > deadline and ranks.acquire_decision())
        claim = entry.current_claim()
        if (
            decided
            and claim is not None
            and claim.token == attempt.claim.token
            and entry.commit_outcome(claim, outcome)
        ):
            return True
        pause.sleep()
    return False
