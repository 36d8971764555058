"""Facts about this process: its Python and installed distributions, user, host, Slurm job and memory."""

from __future__ import annotations

import functools
import getpass
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
    """Whether both are one installation of Python, which has the same packages for both."""
    keys = ("version", "implementation", "prefix")
    return isinstance(other, dict) and all(python[key] == other.get(key) for key in keys)


def distributions() -> dict[str, str]:
    """The installed distributions with their versions, read again after a folder of the search path has changed."""
    return _read_distributions(tuple((folder, _changed_at(folder)) for folder in sys.path))


@functools.lru_cache(maxsize=1)
def _read_distributions(search_path: tuple[tuple[str, int | None], ...]) -> dict[str, str]:
    import importlib.metadata  # takes 20 ms, and few jobs need it

    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:  # without its parser of e-mails, which takes longer than everything else
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        except (OSError, ValueError):
            continue
        if name := _field("Name", text):
            versions.setdefault(name, _field("Version", text))  # the first one is what is imported
    return dict(sorted(versions.items()))


def _changed_at(folder: str) -> int | None:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return None


def describe_user() -> str:
    """The name of the user who runs this process, or the number if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, often no name is known
        return str(os.getuid())


def recorded_environment(names: tp.Iterable[str]) -> dict[str, str]:
    """The named environment variables that are set."""
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}


def describe_slurm() -> Record | None:
    """The Slurm job of this process, None if it is not in one."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    return {key: os.environ[name] for key, name in _SLURM.items() if name in os.environ}


def peak_memory() -> int:
    """Peak memory in bytes: of this process, or of the largest child that it has waited for."""
    high_water_mark = re.search(r"^VmHWM:\s*(\d+) kB", _text_of(Path("/proc/self/status")), re.MULTILINE)
    # ru_maxrss of a process starts with that of its parent, so it is only the second choice
    own = int(high_water_mark[1]) if high_water_mark else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def gpu_models(root: Path = Path("/")) -> list[str]:
    """The names of this host's GPUs, from the files of their drivers: no process is started for it."""
    nvidia = [_field("Model", _text_of(file)) for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
    cards = sorted(root.glob("sys/class/drm/card*/device/product_name"))
    amd = [_text_of(file).strip() for file in cards if re.fullmatch(r"card\d+", file.parts[-3])]
    return [name for name in (*nvidia, *amd) if name]


def _field(name: str, text: str) -> str:
    """The value of a field in the header of a text, which ends at the first empty line; "" if it is not there."""
    match = re.search(rf"^{name}:[ \t]*(.*)$", text.partition("\n\n")[0], re.MULTILINE)
    return match[1].strip() if match else ""


def _text_of(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
