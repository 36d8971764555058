"""Which process is meant, for sure: a pid alone comes again."""

from __future__ import annotations

import functools
import os
import socket
import typing as tp
from pathlib import Path

import psutil


def describe(pid: int | None = None) -> dict[str, tp.Any]:
    """This process (or ``pid``), so that `alive` can tell later, also after a reboot or in another container."""
    pid = os.getpid() if pid is None else pid
    return {**_machine(), "pid": pid, "started": _started(pid), "user": os.getuid()}


def alive(owner: tp.Mapping[str, tp.Any]) -> bool | None:
    """Whether the described process runs; None where it cannot be told from here."""
    here = _machine()
    if any(owner.get(key) != here[key] for key in ("host", "machine")):
        return None
    if owner.get("boot") != here["boot"]:
        return False
    if owner.get("pid_namespace") != here["pid_namespace"]:
        return None
    try:
        process = psutil.Process(owner["pid"])
        return _started(process.pid) == owner["started"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return None


def _started(pid: int) -> float:
    """When a process started: in ticks since boot, which setting the clock does not change, where /proc tells it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return float(stat.rpartition(")")[2].split()[19])  # proc(5): field 22, the name before may hold anything
    except FileNotFoundError:
        return psutil.Process(pid).create_time()


@functools.cache
def _machine() -> dict[str, tp.Any]:
    return {
        "host": socket.gethostname(),
        "machine": _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id"),
        "boot": _read("/proc/sys/kernel/random/boot_id") or str(round(psutil.boot_time())),
        "pid_namespace": _link("/proc/self/ns/pid"),
    }


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip() or None
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
