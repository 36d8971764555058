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
from .status import Mode, OnCodeChange, Status

if tp.TYPE_CHECKING:
    from . import helpers as helpers
    from .confdict import ConfDict
    from .infra.map import MapInfra
    from .infra.task import TaskInfra
    from .store.formats import register_format
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
    "MapInfra",
    "Mode",
    "OnCodeChange",
    "Problem",
    "Status",
    "SubmissionError",
    "TaskFailedError",
    "TaskInfra",
    "main",
    "register_format",
]


# imported when they are asked for: they import Hydra or pydantic, and every start of every Hydra app imports this
_LAZY = {
    "ConfDict": ".confdict",
    "MapInfra": ".infra.map",
    "TaskInfra": ".infra.task",
    "main": ".sweep.main",
    "register_format": ".store.formats",
}


def __getattr__(name: str) -> tp.Any:
    if name == "helpers":
        return importlib.import_module(".helpers", __name__)
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
