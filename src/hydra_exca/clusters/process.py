"""Processes of this machine: describing, finding and ending them, and running programs."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import time
import typing as tp
from pathlib import Path

from hydra_exca import files

from . import process_lock

if tp.TYPE_CHECKING:
    import subprocess

    import psutil

_GRACE_S = 5.0  # between SIGTERM and SIGKILL
_PAUSE_S = 0.01


def describe_process(pid: int | None = None, lock_file: Path | None = None) -> dict[str, tp.Any]:
    """A description of this process (or ``pid``) for `is_alive`, which holds after a reboot and in containers, too.

    With ``lock_file`` other containers can see its end: this process then holds a lock in that file.
    """
    pid = os.getpid() if pid is None else pid
    lock = None if lock_file is None else process_lock.hold_lock(str(lock_file))
    description = {**_machine(), "pid": pid, "started": float(files.start_ticks(pid) or 0), "user": os.getuid()}
    return description if lock is None else {**description, "lock": lock}


def is_this_process(owner: tp.Mapping[str, tp.Any]) -> bool:
    """Whether a description is that of this process."""
    return owner.get("pid") == os.getpid() and owner.items() >= describe_process().items()


def is_alive(owner: tp.Mapping[str, tp.Any]) -> bool | None:
    """Whether the described process runs; None if that cannot be told from here.

    On one kernel, a process that is not in sight, as in another container, has ended if its lock is free.
    """
    alive = _is_alive_in_sight(owner)
    if alive is None and owner.get("lock") and owner.get("boot") == _machine()["boot"]:
        return False if process_lock.is_free(owner["lock"]) else None
    return alive


def _is_alive_in_sight(owner: tp.Mapping[str, tp.Any]) -> bool | None:
    here = _machine()
    if any(owner.get(key) != here[key] for key in ("host", "machine")):
        return None
    if owner.get("boot") != here["boot"]:
        return False
    if owner.get("pid_namespace") != here["pid_namespace"] or "pid" not in owner:
        return None
    try:
        ticks = files.start_ticks(owner["pid"])
    except OSError:
        return None
    return ticks is not None and ticks == owner.get("started")


@functools.cache
def _machine() -> dict[str, tp.Any]:
    return {
        "host": socket.gethostname(),
        "machine": _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id"),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _read("/proc/self/ns/pid", os.readlink),
    }


def _read(path: str, read: tp.Callable[[str], str] = lambda path: Path(path).read_text()) -> str | None:
    try:
        return read(path).strip() or None
    except OSError:
        return None


def run_program(
    command: tp.Sequence[str],
    timeout_s: float,
    environment: tp.Mapping[str, str] | None = None,
    text: str | None = None,
) -> subprocess.CompletedProcess[str] | None:
    """How a program that reads ``text`` ended and what it printed, None if it could not be run or did not end in time.

    It is not in the terminal's process group: a Ctrl-C is for the launch, which waits for the answer.
    """
    import subprocess  # which a job starts without

    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            start_new_session=True,
            **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
        )
    except (subprocess.TimeoutExpired, OSError):
        return None


def exit_reason(code: int) -> str:
    """An exit code of `subprocess` as text.

    >>> exit_reason(-9), exit_reason(3)
    ('killed by SIGKILL (signal 9)', 'exit code 3')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name} (signal {-code})"
    except ValueError:
        return f"killed by signal {-code}"


def end_processes(*pids: int) -> None:
    """Ends these processes and all their descendants, with SIGTERM and, if they do not end, SIGKILL."""
    family = [member for pid in pids for member in _with_descendants(pid)]
    for member in family:
        send_signal(member, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    # psutil's own wait would collect the exit codes of children, which subprocess is to have
    while (left := [member for member in family if _is_running(member)]) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    for member in left:
        send_signal(member, signal.SIGKILL)


def descendants(pid: int) -> list[psutil.Process]:
    """The descendants of a process that still run."""
    return _with_descendants(pid)[1:]


def send_signal(process: psutil.Process, number: int) -> None:
    """Signals a process, unless it has ended or is another user's by now."""
    import psutil  # here and below: a job starts without

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)


def _with_descendants(pid: int) -> list[psutil.Process]:
    import psutil

    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_running(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_processes: set[subprocess.Popen[bytes]] = set()


def keep_until_ended(process: subprocess.Popen[bytes]) -> None:
    """Keeps the object until its process has ended: a Popen that is collected before warns."""
    _processes.difference_update([kept for kept in tuple(_processes) if kept.poll() is not None])
    _processes.add(process)
