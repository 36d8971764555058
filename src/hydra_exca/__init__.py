"""Cached, distributed tasks for Hydra and for plain Python."""

from __future__ import annotations

import importlib
import typing as tp

from .errors import (
    CacheError,
    ConfigError,
    CorruptEntryError,
    DefaultsChangedError,
    ExcaError,
    JobError,
    JobLostError,
    Problem,
    SubmissionError,
    TaskFailedError,
)
from .status import Mode, Status

if tp.TYPE_CHECKING:
    from .confdict import ConfDict
    from .infra.task import TaskInfra
    from .sweep.main import main

__all__ = [
    "CacheError",
    "ConfDict",
    "ConfigError",
    "CorruptEntryError",
    "DefaultsChangedError",
    "ExcaError",
    "JobError",
    "JobLostError",
    "Mode",
    "Problem",
    "Status",
    "SubmissionError",
    "TaskFailedError",
    "TaskInfra",
    "main",
]


# imported when they are asked for: they import Hydra or pydantic, and every start of every Hydra app imports this
_LAZY = {"ConfDict": ".confdict", "TaskInfra": ".infra.task", "main": ".sweep.main"}


def __getattr__(name: str) -> tp.Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
