"""Claims: the right to compute one entry.

``claim.<n>.json`` is published whole, by link(2), and never removed; the highest n owns the entry. Taking an entry over
means publishing n+1, in which only one of any number of processes succeeds. The same holds for each start of a job
(requeues included), for committing an outcome and for giving up. A process that believes it still owns an older claim
fails to publish the next one, and changes nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths


class ClaimState(enum.StrEnum):
    """What the owner of a claim is doing."""

    QUEUED = "queued"  # a launch will submit a job, or has submitted it
    RUNNING = "running"  # a job computes
    COMMITTING = "committing"  # the outcome is about to be written, or is written
    RELEASED = "released"  # given up: nobody computes


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim. ``owner`` describes the process that published it.

    ``number_of_job`` is the number of the job in the launch ``token``. ``shared`` is True if the job computes other
    tasks before this one: then the end of the job, say by its time limit, may not be this task's fault.
    """

    number: int
    state: ClaimState
    token: str
    cluster: str
    job: str | None
    number_of_job: int
    owner: dict[str, tp.Any]
    shared: bool = False
    time: float = dataclasses.field(default_factory=time.time)

    def next(self, state: ClaimState, **changes: tp.Any) -> Claim:
        """The claim that would follow this one."""
        return dataclasses.replace(self, number=self.number + 1, state=state, time=time.time(), **changes)

    def to_json(self) -> bytes:
        return checksums.dump_record(vars(self))


def owning_claim(folder: Path) -> Claim | None:
    """The claim that owns the entry, None if there never was one."""
    number = owning_number(folder)
    return _read(f"{folder}/{paths.claim_name(number)}", number) if number else None


def owning_number(folder: Path) -> int:
    """The number of the claim that owns the entry, 0 if there never was one."""
    try:
        return max((paths.claim_number(name) or 0 for name in os.listdir(folder)), default=0)
    except FileNotFoundError:
        return 0


def _read(path: str, number: int) -> Claim:
    """A claim; one that cannot be read is nobody's: it was published whole, so its machine or disk has failed since."""
    try:
        fields = checksums.parse_record(files.read_file(path))
        return Claim(**{**fields, "state": ClaimState(fields["state"]), "number": number})
    except (ValueError, TypeError, KeyError):
        return Claim(number, ClaimState.RELEASED, "", "", None, 0, {})
