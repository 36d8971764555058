"""The cores and GPUs that this process may use."""

from __future__ import annotations

import itertools
import os
import re
import typing as tp

from .process import run_program

_LISTED_GPU = re.compile(r"^GPU (\d+): .*\(UUID: ([^)]+)\)", re.MULTILINE)
_ANSWER_S = 60.0


def usable_cores() -> tp.Sequence[int]:
    """The ids of the cores that this process may use, which can be fewer than the machine has."""
    return sorted(os.sched_getaffinity(0))


def visible_gpus() -> dict[str, str] | None:
    """The GPUs that this process may use: their names in CUDA_VISIBLE_DEVICES, with their UUIDs where these are known.

    None if nothing tells which there are.
    """
    listed = _list_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return listed
    names = itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, visible.split(",")))
    return {name: _find_uuid(name, listed or {}) for name in names}


def _list_gpus() -> dict[str, str] | None:
    """The UUIDs of all GPUs by their numbers; as the driver lists them, which in a container may not be all."""
    answer = run_program(["nvidia-smi", "-L"], _ANSWER_S)
    return None if answer is None else dict(_LISTED_GPU.findall(answer.stdout))


def _find_uuid(name: str, listed: tp.Mapping[str, str]) -> str:
    """The UUID of a GPU that goes by its number, or by the beginning of its UUID."""
    whole = [uuid for uuid in listed.values() if name.startswith("GPU-") and uuid.startswith(name)]
    return listed.get(name) or (whole[0] if whole else name)
