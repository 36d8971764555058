"""Filters: what holds, what is unknown, and what is refused."""

from __future__ import annotations

import datetime
import typing as tp

import pytest

from hydra_exca import ConfigError
from hydra_exca.catalog.column_names import MISSING
from hydra_exca.catalog.expressions import Expression

RECORD: dict[str, tp.Any] = {
    "lr": 0.1,
    "seed": 3,
    "optimizer.name": "adam",
    "betas": [0.9, 0.99],
    "amp": True,
    "none": None,
    "nan": float("nan"),
    "data-set.n": 5,
    "started": datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC),
}


def holds(text: str) -> bool:
    return Expression(text).is_true(lambda name: RECORD.get(name, MISSING))


@pytest.mark.parametrize(
    "text",
    [
        "lr > 0.01 and optimizer.name == 'adam'",
        "0 < lr <= 0.1 < seed",
        "seed in (1, 3) and seed not in [2]",
        "'dam' in optimizer.name",
        "not lr > 1",
        "seed % 2 == 1 and seed // 2 == 1 and -seed < 0 and seed * 2 - 1 == 5 and seed / 3 == 1",
        "amp",
        "betas[1] > 0.9",
        "betas == [0.9, 0.99]",
        "optimizer['name'] == 'adam'",
        "started > '2026-01-01' and '2026-03-01' > started",
        "none is None and none == None and absent is None and lr is not None",
        "absent > 1 or lr < 1",
        "  lr < 1\n",
    ],
)
def test_what_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "absent > 1",
        "not absent > 1",
        "absent == 1 and lr < 1",
        "nan > 0",
        "not amp",
        "none",
        "lr > 'a'",
        "betas[7] > 0",
    ],
)
def test_what_does_not_hold_for_sure_is_not_true(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "lr >", "lr = 3", "lr > 1; seed", "import os", "print(1)", "().__class__.__bases__", "lr.real()"),
        *("[x for x in betas]", "lambda: 1", "9 ** 9 ** 9", "f'{lr}'", "lr if amp else seed", "(y := 3)", "*betas"),
        *("betas[0:1]", "{1: 2}", "await lr", "lr << 3", "~seed", "a" * 20_000, "(" * 5_000, "not " * 3_000 + "lr"),
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        holds(text)
