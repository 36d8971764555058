"""The examples of Hydra's repository are composed as Hydra's own loader composes them.

They are in no package: HYDRA_REPOSITORY names a clone of it, and without one this file is left out (conftest.py).
"""

from __future__ import annotations

import ast
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from composing import check_app
from omegaconf import OmegaConf

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")
CLONE = os.environ["HYDRA_REPOSITORY"]


def _examples() -> list[str]:
    """The programs of the repository's examples that have a config."""
    root = Path(CLONE, "examples")
    programs = [path for path in sorted(root.rglob("*.py")) if "import ray" not in path.read_text()]
    return [str(path.relative_to(root)) for path in programs if _main(path) is not None]


def _main(program: Path) -> dict[str, Any] | None:
    """The arguments of a program's ``hydra.main``."""
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hydra.main":
            return {each.arg: ast.literal_eval(each.value) for each in node.keywords if each.arg is not None}
    return None


@pytest.mark.parametrize("program", _examples())
def test_an_example_of_hydras_repository_is_composed_as_hydra_does(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(CLONE, "examples", program)
    arguments = _main(path) or {}
    monkeypatch.syspath_prepend(path.parent)
    for name in ("USER", "DB_TYPE"):
        monkeypatch.setenv(name, "sqlite")
    resolvers = set(_resolvers())
    try:
        _import(path, monkeypatch)  # what it stores, it stores when imported
        folder = arguments.get("config_path")
        conf = None if folder is None else path.parent / folder
        check_app(conf, arguments.get("config_name"), 4, arguments.get("version_base"))
    finally:
        for name in set(_resolvers()) - resolvers:
            OmegaConf.clear_resolver(name)


def _import(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # its classes name one another by way of it
    exec(compile(program.read_text(), program, "exec"), vars(module))


def _resolvers() -> list[str]:
    from omegaconf.basecontainer import BaseContainer

    return list(BaseContainer._resolvers)
