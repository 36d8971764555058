"""Facts of this process: its Python and installed distributions, user, host, Slurm job, memory."""

from __future__ import annotations

import functools
import getpass
import importlib.machinery
import os
import platform
import re
import resource
import sys
import typing as tp
from pathlib import Path

Record = dict[str, tp.Any]
_SLURM = {
    "job": "SLURM_JOB_ID",
    "array_job": "SLURM_ARRAY_JOB_ID",
    "array_task": "SLURM_ARRAY_TASK_ID",
    "name": "SLURM_JOB_NAME",
    "cluster": "SLURM_CLUSTER_NAME",
    "partition": "SLURM_JOB_PARTITION",
    "nodelist": "SLURM_JOB_NODELIST",
    "restarts": "SLURM_RESTART_COUNT",
}


def describe_python() -> Record:
    """The Python that runs this process."""
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "prefix": sys.prefix,
    }


def is_same_python(python: Record, other: tp.Any) -> bool:
    """Whether both have the same packages."""
    known = other if isinstance(other, dict) else {}
    return all(python[key] == known.get(key) for key in ("version", "implementation", "prefix"))


def distributions() -> dict[str, str]:
    """The installed distributions with their versions; each folder is read again only after it has changed."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for name, version in _installed(folder, _changed_at(folder)).items():
            found.setdefault(name, version)  # the first one is what is imported
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=256)
def _installed(folder: str, changed_at: int | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in _of_folder(folder) if _is_plain(folder) else _of_finders(folder):
        name, version = (_field(field, text) for field in ("Name", "Version"))
        if name:
            found.setdefault(name, version)
    return found


def _is_plain(folder: str) -> bool:
    """Whether what is installed there is what its folders say: no archive, and nobody else finds more in it."""
    others = [each for each in sys.meta_path if each is not importlib.machinery.PathFinder]
    is_archive = folder.endswith(".egg") or os.path.isfile(folder)
    return not is_archive and not any(hasattr(each, "find_distributions") for each in others)


def _of_folder(folder: str) -> tp.Iterator[str]:
    """The same as `_of_finders`, in half of the time that importing ``importlib.metadata`` takes."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return
    for name in names:
        if name.lower().endswith((".dist-info", ".egg-info")):
            place = Path(folder or ".", name)
            yield _text_of(place / "METADATA") or _text_of(place / "PKG-INFO")


def _of_finders(folder: str) -> tp.Iterator[str]:
    import importlib.metadata  # few need it, and it takes its time

    for each in importlib.metadata.distributions(path=[folder]):
        try:
            yield each.read_text("METADATA") or each.read_text("PKG-INFO") or ""
        except (OSError, ValueError):
            continue


def _changed_at(folder: str) -> int | None:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return None


def describe_user() -> str:
    """Who runs this: a name, or a number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container knows no name
        return str(os.getuid())


def recorded_environment(names: tp.Iterable[str]) -> dict[str, str]:
    """The named environment variables that are set."""
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}


def describe_slurm() -> Record | None:
    """The Slurm job that this process is in, None if it is in none."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    return {key: os.environ[name] for key, name in _SLURM.items() if name in os.environ}


def peak_memory() -> int:
    """Peak memory in bytes: of this process, or of the largest child that it has waited for."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _text_of(Path("/proc/self/status")), re.MULTILINE)
    # ru_maxrss of a process starts with that of the one that has started it
    own = int(found.group(1)) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def visible_gpus(root: Path = Path("/")) -> list[str]:
    """The names of this host's GPUs, as their drivers write them down; no process is started for it."""
    nvidia = [_field("Model", _text_of(file)) for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
    cards = sorted(root.glob("sys/class/drm/card*/device/product_name"))
    amd = [_text_of(file).strip() for file in cards if re.fullmatch(r"card\d+", file.parts[-3])]
    return [name for name in (*nvidia, *amd) if name]


def _field(name: str, text: str) -> str:
    """One line of what stands above the first empty one."""
    found = re.search(rf"^{name}:[ \t]*(.*)$", text.partition("\n\n")[0], re.MULTILINE)
    return found.group(1).strip() if found else ""


def _text_of(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
