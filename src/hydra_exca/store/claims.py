"""Claims: the right to compute one entry.

``claim.<n>.json`` is published whole, by link(2), and the highest n owns the entry. It stays until an outcome stands
for it, and its number never comes back. Taking an entry over means publishing n+1, in which only one of any number of
processes succeeds. The same holds for each start of a job (requeues included), for committing an outcome and for giving
up. A process that believes it still owns an older claim fails to publish the next one, and changes nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import re
import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.clusters import CLUSTERS, process
from hydra_exca.errors import CacheError, CorruptEntryError

log = logging.getLogger("exca.store")
_NONE = type(None)
_PROCESS = {"pid": (int,), "started": (int, float), "user": (int, _NONE), "host": (str,)}
_MACHINE = ("host", "machine", "boot")
_PID_NAMESPACE = re.compile(r"pid:\[\d{1,20}\]")
_LOCK = {"file": (str,), "device": (int,), "inode": (int,), "byte": (int,)}
_UNKNOWN_PROCESS = {name: (*kinds, _NONE) for name, kinds in _PROCESS.items()} | {"pid": (int,)}


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
    tasks before this one: then the end of the job, say by its time limit, may not be this task's fault. ``lost`` has
    the launches whose jobs for this task are believed to be lost: one that is alive after all may still commit a value.
    ``attempt`` counts the starts of the task, and names the log of the newest. An outcome of a claim up to ``replaces``
    is older than the force, or the retry, of the claim's launch.
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
    lost: tuple[str, ...] = ()
    attempt: int = 0
    replaces: int = 0
    writer: int | None = dataclasses.field(default=None, compare=False, repr=False)
    """The user who owns the file, None before it is read back: what a claim says of a process is believed of theirs."""

    def next(self, state: ClaimState, **changes: tp.Any) -> Claim:
        """The claim that would follow this one."""
        changes = {"number": self.number + 1, "state": state, "time": time.time(), "writer": None, **changes}
        return dataclasses.replace(self, **changes)

    def is_heir_of(self, claim: Claim) -> bool:
        """Whether this claim was taken or given up because the job of an earlier one was believed to be lost."""
        is_open = self.state in (ClaimState.QUEUED, ClaimState.RUNNING, ClaimState.RELEASED)
        return is_open and claim.token in self.lost and self.number > claim.number

    def to_json(self) -> bytes:
        fields = vars(self).copy()
        del fields["writer"]
        for name in ("lost", "replaces"):
            if not fields[name]:
                del fields[name]
        return checksums.dump_record(fields)


def owning_claim(folder: Path) -> Claim | None:
    """The claim that owns the entry, None if there never was one."""
    number = owning_number(folder)
    return _read(f"{folder}/{paths.claim_name(number)}", number) if number else None


def owning_number(folder: Path) -> int:
    """The number of the claim that owns the entry, 0 if there never was one."""
    return max((paths.claim_number(name) or 0 for name in files.list_folder(folder)), default=0)


def _read(path: str, number: int) -> Claim | None:
    """A claim; one that is damaged is nobody's: it was published whole, so its machine or disk has failed since."""
    try:
        return read_claim(path, number)
    except FileNotFoundError:  # the entry was removed
        return None
    except CorruptEntryError as error:
        log.warning("exca: %s; it counts as nobody's claim", error)
        return Claim(number, ClaimState.RELEASED, "", "", None, 0, {})


def read_claim(path: str | Path, number: int) -> Claim:
    """The claim in a file. Raises CorruptEntryError if it is damaged."""
    data, writer = files.read_owned(path)
    fields = records.parse(path, data)
    with records.damage_named(path):
        for name in ("number_of_job", "attempt", "replaces"):
            if fields.get(name, 0) < 0:
                raise ValueError(f"{name!r} cannot be {fields[name]}")
        if fields["state"] != ClaimState.RELEASED:
            check_owner(fields["owner"], path)
        lost = fields.get("lost", [])
        records.check_type("lost", lost, (list,))
        for token in (fields["token"], *lost):
            records.check_name("token", token)
        if fields["job"] is not None:
            records.check_name("job", fields["job"])
        fields.update(state=ClaimState(fields["state"]), number=number, writer=writer, lost=tuple(lost))
        claim = records.build(Claim, fields)
    check_cluster(claim.cluster, path)
    return claim


def check_cluster(cluster: str | None, path: str | Path) -> None:
    """Raises CacheError if this version does not know where jobs of the claim at ``path`` run: somebody may own it."""
    if cluster is not None and cluster not in CLUSTERS:
        raise CacheError(f"{path} has a cluster that this version of hydra-exca-launcher does not know: {cluster:.60}")


def describe_owner(folder: Path) -> dict[str, tp.Any]:
    """A description of this process as the owner of claims in a folder."""
    return process.describe_process(lock_file=paths.claims_lock(folder))


def check_owner(owner: tp.Any, path: str | Path) -> None:
    """Raises ValueError if the description of the owner of the claim at ``path`` is damaged; an empty one is not.

    Its lock is looked for beside the claim, as another container may have the cache in another place.
    """
    if owner == {}:
        return
    records.check_fields(owner, _PROCESS if "boot" in owner else _UNKNOWN_PROCESS)
    if owner["pid"] <= 0:
        raise ValueError(f"'pid' cannot be {owner['pid']}")
    for name in _MACHINE:
        if owner.get(name) is not None:
            records.check_name(name, owner[name])
    namespace = owner.get("pid_namespace")
    if namespace is not None and not _PID_NAMESPACE.fullmatch(namespace):
        raise ValueError(f"'pid_namespace' cannot be {namespace!r:.60}")
    if owner.get("lock") is not None:
        records.check_fields(owner["lock"], _LOCK)
        owner["lock"]["file"] = str(paths.claims_lock(Path(path).parent))
