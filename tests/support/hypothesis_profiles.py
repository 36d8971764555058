"""How many inputs hypothesis tries: those of the profile `test`, or a tenth with ``--hypothesis-profile=check``."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

settings.register_profile("test", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("check", settings.get_profile("test"), max_examples=10)
settings.load_profile("test")


def is_small() -> bool:
    """Whether a run is to try less than usual."""
    return settings.default.max_examples < 100


def examples(count: int, **options: Any) -> settings:
    """So many inputs in the profile `test`, and in others in proportion."""
    return settings(max_examples=max(1, count * settings.default.max_examples // 100), **options)
