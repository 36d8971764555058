"""Claims: the right to compute one entry.

``claim.<n>.json`` is published by link(2), whole, and never removed; the highest n owns. Taking over is
publishing n+1, which one of any number of takers manages. So is starting (each start of a job, requeues
included), committing an outcome and giving up: whoever still believes to own an older claim fails to publish
the next one and changes nothing.
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

    QUEUED = "queued"  # a launch has it and will submit, or has submitted, a job
    RUNNING = "running"  # a job computes
    COMMITTING = "committing"  # the outcome is computed and about to be written, or written
    RELEASED = "released"  # given up: nobody computes


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim. ``owner`` is the process that published it, as the clusters describe processes.

    ``number_of_job`` is that of the job in its launch ``token``. ``shared`` tells that the job computes other tasks
    before this one: what ends with the job, by its time limit say, may be none of this task's fault.
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


def publish(folder: Path, claim: Claim) -> bool:
    """Takes ``claim``; False when somebody has taken that number before."""
    return files.publish_file(folder / paths.claim_name(claim.number), claim.to_json())


def _read(path: str, number: int) -> Claim:
    """A claim; one that cannot be read is nobody's: it was published whole, so its machine or disk has failed since."""
    try:
        fields = checksums.parse_record(files.read_file(path))
        return Claim(**{**fields, "state": ClaimState(fields["state"]), "number": number})
    except (ValueError, TypeError, KeyError):
        return Claim(number, ClaimState.RELEASED, "", "", None, 0, {})
