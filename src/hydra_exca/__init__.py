"""Cached, distributed tasks for Hydra and for plain Python."""

from __future__ import annotations

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
    from .sweep.main import main

__all__ = [
    "CacheError",
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
    "main",
]


def __getattr__(name: str) -> tp.Any:
    if name == "main":  # imports Hydra and pydantic, which a job or a launcher may not need
        from .sweep.main import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
