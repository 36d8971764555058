"""Who imports whom: a module imports only from the rooms above its own, and a foreign library has one place.

Imports in functions and those for type checkers count as any other.
"""

from __future__ import annotations

import ast
import functools
import importlib
import types
import typing as tp
from pathlib import Path

import pytest
from places import ROOT

import hydra_exca

# from the ground up; a room may import from those before it
ROOMS = [
    *("errors", "status", "paths", "text", "globs", "files", "checksums", "records", "polling", "script"),
    *("identity", "confdict", "code", "clusters", "store", "provenance"),
    *("job", "launch", "rerun", "catalog", "report", "infra", "sweep", "cli", "helpers"),
    "hydra_plugins",
]
SIBLINGS = {"identity", "code", "clusters"}  # never one another
PLACES = {
    "submitit": {"clusters"},
    "hydra": {"sweep", "hydra_plugins"},
    "omegaconf": {"sweep", "hydra_plugins"},
    "click": {"cli"},
    "plotly": {"report"},
}
ROOTS = {ROOT / "src/hydra_exca": "hydra_exca", ROOT / "hydra_plugins": "hydra_plugins"}


class Import(tp.NamedTuple):
    by: str  # dotted names of modules
    of: str
    line: int


@functools.cache
def modules() -> dict[str, ast.Module]:
    """The syntax trees of all modules of ours, by their dotted names."""
    return {name: ast.parse(path.read_text()) for name, path in _files().items()}


@functools.cache
def packages() -> set[str]:
    return {name for name, path in _files().items() if path.name == "__init__.py"}


def _files() -> dict[str, Path]:
    found = {}
    for root, prefix in ROOTS.items():
        for path in root.rglob("*.py"):
            parts = [prefix, *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts[:-1] if path.name == "__init__.py" else parts)] = path
    return found


def room(module: str) -> str:
    """The room that a module of ours is in."""
    top, *rest = module.split(".")
    return top if top == "hydra_plugins" or not rest else rest[0]


def is_own(module: str) -> bool:
    return module.split(".")[0] == "hydra_exca" or module.startswith("hydra_plugins.hydra_exca_launcher")


def targets(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """What an import statement imports: modules, not the names in them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = module if module in packages() else module.rpartition(".")[0]
    above = package.split(".")[: len(package.split(".")) + 1 - node.level]
    base = ".".join([*above, *([node.module] if node.module else [])]) if node.level else str(node.module)
    return [name if (name := f"{base}.{alias.name}") in modules() else base for alias in node.names]


@functools.cache
def imports() -> list[Import]:
    return [
        Import(module, target, node.lineno)
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in targets(module, node)
    ]


def own_imports() -> list[Import]:
    """Those of modules of ours."""
    return [found for found in imports() if is_own(found.of) and found.of != "hydra_exca"]


def test_the_walk_sees_the_imports() -> None:
    pairs = {(room(found.by), room(found.of)) for found in own_imports()}
    assert {("launch", "store"), ("store", "paths"), ("job", "code"), ("hydra_plugins", "sweep")} <= pairs
    assert {"submitit", "hydra", "omegaconf", "click"} <= {found.of.split(".")[0] for found in imports()}


def test_every_module_is_in_a_room() -> None:
    assert {room(module) for module in modules()} - {"hydra_exca", *ROOMS} == set()


def test_a_module_imports_only_from_its_own_room_and_those_above() -> None:
    rooms = [found for found in own_imports() if room(found.by) != "hydra_exca"]
    assert [found for found in rooms if ROOMS.index(room(found.of)) > ROOMS.index(room(found.by))] == []


def test_identity_code_and_clusters_never_import_one_another() -> None:
    between = [found for found in own_imports() if {room(found.by), room(found.of)} <= SIBLINGS]
    assert [found for found in between if room(found.by) != room(found.of)] == []


def test_nothing_imports_the_package_itself_for_its_names() -> None:
    assert [found for found in imports() if found.of == "hydra_exca" and found.by != "hydra_exca"] == []


@pytest.mark.parametrize("library", PLACES)
def test_a_foreign_library_is_imported_in_one_place(library: str) -> None:
    of_it = {room(found.by) for found in imports() if found.of.split(".")[0] == library}
    assert of_it <= PLACES[library]


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for found in own_imports():
        if found.of in modules() and found.of != found.by:
            graph[found.by].add(found.of)
    assert [trail for start in graph for trail in _cycles(graph, start)] == []


def _cycles(graph: dict[str, set[str]], start: str) -> tp.Iterator[list[str]]:
    """The way from a module back to itself, if there is one."""
    seen, waiting = set(), [[start]]
    while waiting:
        trail = waiting.pop()
        for target in graph.get(trail[-1], ()):
            if target == start:
                yield [*trail, start]
                return
            if target not in seen:
                seen.add(target)
                waiting.append([*trail, target])


def test_no_two_classes_have_one_name() -> None:
    names = [node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_all_is_exactly_what_is_public() -> None:
    public = {
        name
        for name, value in vars(hydra_exca).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in ("annotations",)
    }
    assert set(hydra_exca.__all__) >= public | set(hydra_exca._MODULES)  # all others are asked for by their names


def test_all_is_sorted_and_without_repetition() -> None:
    assert list(hydra_exca.__all__) == sorted(set(hydra_exca.__all__))


@pytest.mark.parametrize("name", hydra_exca.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(importlib.import_module("hydra_exca"), name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = hydra_exca.nothing_such
