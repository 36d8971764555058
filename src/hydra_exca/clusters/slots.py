"""The cores and GPUs that local jobs hold, shared by all launches of a user on a machine, without a daemon.

A slot is a core or a GPU, and a lock file in a folder of the user's own. The starter of a job locks the files with
`flock`, which goes with the open files to the process that it starts. That process locks them again with `lockf`, and
only then gives the first lock up: so at every moment somebody holds the slot, and nobody else can. Of the two, the job
keeps the one that ends with the process itself; the other would stay with processes that it has forked.

In a job, a launch shares the slots of that job: these have lock files of their own, named like the job's with a plus.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import shutil
import stat
import time
import typing as tp
import uuid
from pathlib import Path

from hydra_exca import checksums, files, records
from hydra_exca.errors import CorruptEntryError
from hydra_exca.text import count_noun, log_once

from .process import describe_process, is_alive

log = logging.getLogger("exca.clusters")
_MACHINE_FOLDER = "EXCA_MACHINE_FOLDER"  # for tests
_HANDED = "EXCA_HANDED_SLOTS"
_HELD = "EXCA_HELD_SLOTS"
_GATE = "gate"
_TICKET = ".ticket"
_SILENT_S = 10.0  # a launch that has not asked for so long, say one that is suspended, is overtaken
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE, _PRIVATE_FOLDER = 0o600, 0o700
_SHOWN = 3
_NOT_SHARED = "exca: local jobs do not share this machine's cores and GPUs with those of other launches: %s"


@dataclasses.dataclass(frozen=True)
class Request:
    """So many slots out of these, the first ones first. ``noun`` is what one of them is called."""

    count: int
    slots: tp.Sequence[str]
    noun: str = "core"


class Holder(tp.NamedTuple):
    """Who holds a slot, or waits for one: the folder of a launch, the process, and the one that has started it."""

    launch: str
    pid: int
    starter: int


@dataclasses.dataclass(frozen=True)
class TakenSlots:
    """Slots for a job that is about to start, locked by these open files. To be closed once it has started."""

    folder: Path
    files: tp.Mapping[str, int]

    def environment(self) -> dict[str, str]:
        """The variables by which the job knows its slots."""
        return {_HANDED: json.dumps({"folder": str(self.folder), "files": dict(self.files)})}

    def record_holder(self, launch: Path, pid: int) -> None:
        """Writes into the lock files who holds them, if that is possible: launches that wait show it."""
        text = json.dumps(Holder(str(launch), pid, os.getpid())).encode()
        for file in self.files.values():
            with contextlib.suppress(OSError):
                os.pwrite(file, text, 0)

    def close(self) -> None:
        """Closes the files of this process; without a job that has them too, that frees the slots."""
        for file in self.files.values():
            os.close(file)


@dataclasses.dataclass(frozen=True)
class HeldSlots:
    """The slots of the job that this process is part of, and the folder of their lock files."""

    folder: Path
    slots: tp.Sequence[str]


def hold_slots() -> None:
    """Holds, as a job that has just started, the slots that its starter has taken for it."""
    os.environ.pop(_HELD, None)  # of a job that this one was submitted by
    handed = json.loads(os.environ.pop(_HANDED, "null"))
    if handed is None:
        return
    for file in handed["files"].values():
        fcntl.lockf(file, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_UN)  # for copies of the file in other processes, too
    held = {"folder": handed["folder"], "slots": list(handed["files"]), "owner": describe_process()}
    os.environ[_HELD] = json.dumps(held)


def held_slots() -> HeldSlots | None:
    """The slots of the job that this process is part of, None if it is part of none that has any."""
    held = json.loads(os.environ.get(_HELD, "null"))
    if held is None or not is_alive(held["owner"]):
        return None
    return HeldSlots(Path(held["folder"]), held["slots"])


def choose_slots(
    requests: tp.Sequence[Request], free: tp.Iterable[str], earlier: tp.Iterable[tp.Sequence[Request]]
) -> list[str] | None:
    """The slots for all requests, None if there are too few; those who have asked earlier keep what they will need.

    >>> choose_slots([Request(1, ["core-0", "core-1"])], ["core-0", "core-1"], earlier=[[Request(1, ["core-0"])]])
    ['core-1']
    """
    left = list(free)
    chosen = _choose(requests, left)
    for others in earlier:
        if chosen is None:  # the rest of a long queue need not be read
            break
        for request in others:
            for slot in _first(request, left):
                left.remove(slot)
        chosen = _choose(requests, left)
    return chosen


def _choose(requests: tp.Iterable[Request], free: tp.Sequence[str]) -> list[str] | None:
    chosen: list[str] = []
    for request in requests:
        slots = _first(request, free)
        if len(slots) < request.count:
            return None
        chosen += slots
    return chosen


def _first(request: Request, free: tp.Sequence[str]) -> list[str]:
    return [slot for slot in request.slots if slot in free][: request.count]


class MachineSlots:
    """Takes slots for the jobs of one launch, one job at a time, and keeps its place in the queue.

    ``launch`` is the folder of the launch. The lock files are those of the job that this process is part of, or else of
    the machine. A launch that is not ``shared``, or for which there is no such folder, counts in a folder of its own.
    """

    def __init__(self, launch: Path, shared: bool = True) -> None:
        self._launch = str(launch)
        self._is_shared = shared
        self._held = held_slots() if shared else None
        self._path: Path | None = None
        self._ticket: _Ticket | None = None
        self._has_explained = False

    def core_slots(self, cores: tp.Iterable[int]) -> list[str]:
        """The slots of these cores, or else the cores of the job."""
        if self._held is None:
            return [f"core-{core}" for core in cores]
        return [f"{slot}+" for slot in self._held.slots if slot.startswith("core-")]

    def gpu_slots(self, gpus: tp.Mapping[str, str]) -> dict[str, str]:
        """The slots of these GPUs, each with its name in CUDA_VISIBLE_DEVICES; ``gpus`` has the UUIDs by these names.

        A job that holds no GPU may still see some. Its launches wait for these as those outside do.
        """
        slots = {f"gpu-{uuid.replace('/', '-')}": name for name, uuid in gpus.items()}
        held = {} if self._held is None else {slot.rstrip("+"): f"{slot}+" for slot in self._held.slots}
        return {held.get(slot, slot): name for slot, name in slots.items()}

    def take(self, requests: tp.Sequence[Request]) -> TakenSlots | None:
        """All that is asked for, or nothing yet: then ask again, and nobody overtakes you meanwhile."""
        try:
            return self._take(self._path or self._open(), requests)
        except OSError as error:
            if not self._is_shared:
                raise
            log_once(log, logging.WARNING, _NOT_SHARED, str(error))
            with contextlib.suppress(OSError):
                self.leave_queue()
            self._is_shared, self._ticket = False, None
            return self._take(self._open(), requests)

    def leave_queue(self) -> None:
        """Nothing is asked for any more."""
        if self._ticket is not None:
            self._ticket.path.unlink(missing_ok=True)
        self._ticket = None

    def _open(self) -> Path:
        if not self._is_shared:
            self._path = _private_folder(self)
        else:
            self._path = machine_folder() if self._held is None else self._held.folder
        return self._path

    def _take(self, path: Path, requests: tp.Sequence[Request]) -> TakenSlots | None:
        with _gate(path) as is_open:
            if not is_open:
                return None
            free: dict[str, int] = {}
            try:
                chosen = self._choose_free(path, requests, free)
                if chosen is None:
                    return None
                for slot in chosen:
                    os.ftruncate(free[slot], 0)
                self.leave_queue()
                return TakenSlots(path, {slot: free.pop(slot) for slot in chosen})
            finally:
                for file in free.values():
                    os.close(file)

    def _choose_free(self, path: Path, requests: tp.Sequence[Request], free: dict[str, int]) -> list[str] | None:
        """The slots to take, None to wait. All that are free are in ``free``, with their locked files."""
        slots = [slot for request in requests for slot in request.slots]
        for slot in slots:
            file = _lock(path / slot)
            if file is not None:
                free[slot] = file
        chosen = choose_slots(requests, free, (ticket.requests for ticket in self._earlier_tickets(path)))
        if chosen is None:
            self._wait(path, requests)
            self._explain_once(path, [slot for slot in slots if slot not in free])
        return chosen

    def _wait(self, path: Path, requests: tp.Sequence[Request]) -> None:
        """Takes a place in the queue, or keeps it."""
        if self._ticket is None:
            self._ticket = _Ticket(_new_ticket_path(path, self._depth), self._launch, describe_process(), requests)
        elif self._ticket.requests != requests:
            self._ticket = dataclasses.replace(self._ticket, requests=requests)
        elif self._ticket.renew():
            return
        self._ticket.write()

    def _earlier_tickets(self, path: Path) -> tp.Iterator[_Ticket]:
        own = _new_ticket_path(path, self._depth) if self._ticket is None else self._ticket.path
        for name in sorted(name for name in os.listdir(path) if name.endswith(_TICKET) and name < own.name):
            ticket = _Ticket.read(path / name)
            if ticket is None:
                (path / name).unlink(missing_ok=True)
            else:
                yield ticket

    @property
    def _depth(self) -> int:
        """How many jobs this process is in, one within the other."""
        return 0 if self._held is None else max(slot.count("+") for slot in self._held.slots) + 1

    def _explain_once(self, path: Path, busy: tp.Sequence[str]) -> None:
        """Says which launches of other processes are in the way."""
        if self._has_explained or self._ticket is None:
            return
        holders = {*_holders(path, busy), *(ticket.holder for ticket in self._earlier_tickets(path))}
        pids = {
            holder.launch: holder.pid
            for holder in sorted(holders)
            if holder.launch != self._launch and holder.starter != os.getpid()
        }
        if not pids:
            return
        others = [f"{launch} (process {pid})" for launch, pid in pids.items()]
        self._has_explained = True
        wanted = " and ".join(count_noun(each.count, each.noun, f"{each.noun}s") for each in self._ticket.requests)
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        log.warning("exca: waiting for %s, which other launches use: %s%s", wanted, ", ".join(others[:_SHOWN]), more)


@dataclasses.dataclass(frozen=True)
class _Ticket:
    """A place in the queue: a file whose name gives the order. It counts as long as it is renewed."""

    path: Path
    launch: str
    owner: tp.Mapping[str, tp.Any]
    requests: tp.Sequence[Request]

    @property
    def holder(self) -> Holder:
        return Holder(self.launch, self.owner["pid"], self.owner["pid"])

    @classmethod
    def read(cls, path: Path) -> tp.Self | None:
        """The ticket in a file, None if nobody asks with it any more."""
        try:
            is_silent = abs(time.time() - path.stat().st_mtime) > _SILENT_S
            launch, owner, requests = checksums.parse_json(files.read_file(path))
            ticket = cls(path, launch, owner, [Request(*request) for request in requests])
            is_gone = is_silent or is_alive(owner) is False
        except (OSError, CorruptEntryError, *records.DAMAGES):
            return None
        return None if is_gone else ticket

    def write(self) -> None:
        requests = [dataclasses.astuple(request) for request in self.requests]
        with open(os.open(self.path, _FLAGS | os.O_TRUNC, _PRIVATE), "w") as file:
            json.dump([self.launch, self.owner, requests], file)

    def renew(self) -> bool:
        """Whether it still was there: others remove one that has not been renewed for long."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        return True


def _new_ticket_path(path: Path, depth: int) -> Path:
    """Launches in jobs come first, because what is outside may wait for their job; then, whoever has asked first."""
    return path / f"{999 - depth}-{time.monotonic_ns():020}-{uuid.uuid4().hex}{_TICKET}"


def machine_folder() -> Path:
    """The folder that all launches of this user on this machine share; raises OSError if there can be none."""
    path = Path(os.environ.get(_MACHINE_FOLDER) or f"/tmp/hydra-exca-{os.getuid()}")  # not TMPDIR: shells may differ
    with contextlib.suppress(FileExistsError):
        path.mkdir(_PRIVATE_FOLDER)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{path} is not a folder")
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path} is not a private folder of yours (mode 700)")
    return path


def _private_folder(owner: MachineSlots) -> Path:
    """A folder that lasts as long as its owner."""
    import tempfile  # which a job starts without
    import weakref

    path = tempfile.mkdtemp(prefix="hydra-exca-")
    weakref.finalize(owner, shutil.rmtree, path, ignore_errors=True)
    return Path(path)


@contextlib.contextmanager
def _gate(path: Path) -> tp.Iterator[bool]:
    """Lets one process at a time take slots or wait for them; False where another one does."""
    file = os.open(path / _GATE, _FLAGS, _PRIVATE)
    is_open = False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_open = True
        yield is_open
    finally:
        if is_open:  # closing it would not do, if another thread has forked meanwhile
            fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _lock(path: Path) -> int | None:
    """An open file with both locks a moment ago and `flock` now, None if a job holds the slot or is about to."""
    with contextlib.suppress(BlockingIOError), contextlib.ExitStack() as opened:
        file = os.open(path, _FLAGS, _PRIVATE)
        opened.callback(os.close, file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_UN)
        opened.pop_all()
        return file
    return None


def _holders(path: Path, slots: tp.Iterable[str]) -> tp.Iterator[Holder]:
    """Who holds these slots; who has just taken one may not have said so yet."""
    for slot in slots:
        with contextlib.suppress(OSError, CorruptEntryError, *records.DAMAGES):
            yield Holder(*checksums.parse_json(files.read_file(path / slot)))
