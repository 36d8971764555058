"""How much a run tries of what could go on for ever: inputs of hypothesis, damages, combinations.

With ``--hypothesis-profile=long`` all that the tests name, by default a quarter, and with ``check`` a tenth of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import settings

Item = TypeVar("Item")
ALL = 100  # its max_examples are the percentage of a profile

settings.register_profile("long", derandomize=True, deadline=None, database=None, max_examples=ALL)
settings.register_profile("test", settings.get_profile("long"), max_examples=25)
settings.register_profile("check", settings.get_profile("long"), max_examples=10)
settings.load_profile("test")


def is_small() -> bool:
    """Whether a run is to try as little as possible."""
    return settings.default.max_examples < 25


def is_long() -> bool:
    """Whether a run is to try all."""
    return settings.default.max_examples >= ALL


def examples(count: int, **options: Any) -> settings:
    """So many inputs in the profile `long`, and in others in proportion."""
    return settings(**{"max_examples": max(1, count * settings.default.max_examples // ALL), **options})


def step(count: int = 1) -> int:
    """To try each ``step()``-th item: 1 in the profile `long`; in others as many times ``count`` as they try less."""
    return 1 if is_long() else count * ALL // settings.default.max_examples


def some(items: Sequence[Item], offset: int = 0) -> Sequence[Item]:
    """All items in the profile `long`, in others a part of them from everywhere."""
    return items[offset % step() :: step()]
