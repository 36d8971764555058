"""Who imports whom: a module imports only from the layers above its own, a foreign library has one place."""

from __future__ import annotations

import ast
import importlib
import types
import typing as tp
from pathlib import Path

import pytest

import hydra_exca

ROOT = Path(__file__).parent.parent
LAYERS: list[set[str]] = [
    {"errors", "status"},
    {"canonical", "leaves", "models", "plain", "quick", "records", "uid", "paths", "plan", "script", "confdict"}
    | {"machine", "project", "provenance", "repository"},
    {"store", "clusters", "workdir"},
    {"payload", "worker", "results", "survey", "round", "engine", "watch", "lost", "keeper", "cancel", "settings"}
    | {"attempt", "checkpoints", "recording", "child", "ending", "pack", "packed", "rerun", "verdict", "alike"}
    | {"code", "stale"},
    {"infra", "sweep"},
    {"helpers", "cli"},
    {"hydra_plugins"},
]
SIBLINGS = {"store", "clusters", "workdir"}  # of one layer, and never one another
PLACES = {
    "submitit": {"clusters"},
    "hydra": {"sweep", "hydra_plugins"},
    "omegaconf": {"sweep", "hydra_plugins"},
    "rich": {"report", "cli"},
    "click": {"cli"},
}


class Import(tp.NamedTuple):
    by: str  # the part of the package, as in LAYERS
    of: str
    file: str
    line: int


def modules() -> dict[Path, str]:
    """Every source file and its dotted name."""
    found = {}
    for root, prefix in ((ROOT / "src/hydra_exca", "hydra_exca"), (ROOT / "hydra_plugins", "hydra_plugins")):
        for path in root.rglob("*.py"):
            parts = [prefix, *path.relative_to(root).with_suffix("").parts]
            found[path] = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return found


def part(module: str) -> str:
    """The room of the architecture that a module of ours is in."""
    top, *rest = module.split(".")
    return top if top == "hydra_plugins" or not rest else rest[0]


def imported(path: Path, module: str) -> tp.Iterator[tuple[str, int]]:
    """Dotted names of what a file imports at run time, in functions too, names of submodules resolved."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*above, *([node.module] if node.module else [])]) if node.level else str(node.module)
            for alias in node.names:
                yield (f"{base}.{alias.name}" if base == "hydra_exca" else base), node.lineno


def all_imports() -> list[Import]:
    found = []
    for path, module in modules().items():
        for name, line in imported(path, module):
            own = name.startswith(("hydra_exca", "hydra_plugins.hydra_exca_launcher"))
            of = part(name) if own else name.removeprefix("hydra_plugins.").partition(".")[0]  # others' plugins
            found.append(Import(part(module), of, str(path.relative_to(ROOT)), line))
    return found


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_the_walk_sees_the_imports() -> None:
    pairs = {(found.by, found.of) for found in all_imports()}
    assert {("engine", "store"), ("store", "paths"), ("clusters", "submitit"), ("sweep", "hydra")} <= pairs


def test_every_module_has_a_layer() -> None:
    known = {name for names in LAYERS for name in names} | {"hydra_exca"}
    assert {part(module) for module in modules().values()} - known == set()


def test_a_module_imports_only_from_its_layer_and_those_above() -> None:
    known = {name for names in LAYERS for name in names}
    pairs = [i for i in all_imports() if i.by in known and i.of in known]
    assert [i for i in pairs if layer(i.of) > layer(i.by)] == []


def test_store_clusters_and_workdir_never_import_one_another() -> None:
    assert [i for i in all_imports() if {i.by, i.of} <= SIBLINGS and i.by != i.of] == []


def test_nothing_imports_the_package_itself_for_its_names() -> None:
    names = set(hydra_exca.__all__)
    assert [i for i in all_imports() if i.of in names and i.by != "hydra_exca"] == []


@pytest.mark.parametrize("library", PLACES)
def test_a_foreign_library_is_imported_in_one_place(library: str) -> None:
    assert {i.by for i in all_imports() if i.of == library} <= PLACES[library]


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    names = set(modules().values())
    for path, module in modules().items():
        targets = {name for name, _ in imported(path, module)}
        if path.name != "__init__.py":  # a package's own names come from its modules
            targets |= {t.rpartition(".")[0] for t in targets if t.rpartition(".")[0] in names} - {"hydra_exca"}
        graph[module] = (targets & names) - {module, module.rpartition(".")[0]}
    cycles = [trail for start in graph for trail in _cycles(graph, start)]
    assert cycles == []


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


def test_all_is_exactly_what_is_public() -> None:
    public = {
        name
        for name, value in vars(hydra_exca).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in ("annotations",)
    }
    assert set(hydra_exca.__all__) == public | set(hydra_exca._LAZY)  # imported when asked for


def test_all_is_sorted_and_without_repetition() -> None:
    assert list(hydra_exca.__all__) == sorted(set(hydra_exca.__all__))


@pytest.mark.parametrize("name", hydra_exca.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(importlib.import_module("hydra_exca"), name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = hydra_exca.nothing_such
