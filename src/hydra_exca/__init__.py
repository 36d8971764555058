"""Cached, distributed tasks for Hydra and for plain Python."""

from __future__ import annotations

import importlib
import typing as tp

if tp.TYPE_CHECKING:
    from . import helpers as helpers
    from .confdict import ConfDict
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
    from .infra.map import MapInfra
    from .infra.stored_results import results
    from .infra.task import TaskInfra
    from .status import Mode, OnCodeChange, Status
    from .store.formats.registry import register_format
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
    "results",
]


# imported when they are asked for: every start of every Hydra app imports this, to find our config groups
_MODULES = {
    "ConfDict": ".confdict",
    "MapInfra": ".infra.map",
    "Mode": ".status",
    "OnCodeChange": ".status",
    "Status": ".status",
    "TaskInfra": ".infra.task",
    "main": ".sweep.main",
    "register_format": ".store.formats.registry",
    "results": ".infra.stored_results",
}
"""The modules of the public names, without those that are in ``errors``."""


def __getattr__(name: str) -> tp.Any:
    if name == "helpers":
        return importlib.import_module(".helpers", __name__)
    if name in __all__:
        return getattr(importlib.import_module(_MODULES.get(name, ".errors"), __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
