"""The examples in the docstrings of the package run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import hydra_exca


def _has_examples(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None and ">>> " in Path(spec.origin).read_text()


NAMES = [module.name for module in pkgutil.walk_packages(hydra_exca.__path__, "hydra_exca.")]


@pytest.mark.parametrize(
    "name",
    [name for name in ["hydra_exca", *NAMES] if _has_examples(name)],
)
def test_the_examples_of_a_module_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what an example writes
    ran = doctest.testmod(importlib.import_module(name))
    assert ran.failed == 0 and ran.attempted > 0
