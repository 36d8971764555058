"""``hydra-exca options``: what can be set below ``hydra.launcher``, and in an infra."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap
import typing as tp
from collections.abc import Iterator

import click

from hydra_exca.infra.map import MapInfra
from hydra_exca.infra.task import TaskInfra
from hydra_exca.sweep.launcher_conf import ExcaLauncherConf, WorkdirConf

from . import consoles

_COLUMNS = ("option", "type", "default", "meaning")


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a door, as it is set there; ``default`` is that of the class, in the words of JSON."""

    option: str
    type: str
    default: str
    meaning: str


def print_options(as_json: bool) -> None:
    """Prints the options of both doors."""
    doors = {"hydra.launcher": list(launcher_options()), "infra": list(infra_options())}
    if as_json:
        click.echo(json.dumps({door: list(map(dataclasses.asdict, options)) for door, options in doors.items()}))
        return
    for door, options in doors.items():
        consoles.print_table(door, _COLUMNS, [dataclasses.astuple(option) for option in options], ends_in_prose=True)


def launcher_options() -> Iterator[Option]:
    """The options of a sweep."""
    for option in _options_of(ExcaLauncherConf, "hydra.launcher."):
        if option.option == "hydra.launcher.workdir":
            yield from _options_of(WorkdirConf, "hydra.launcher.workdir.")
        else:
            yield option


def infra_options() -> Iterator[Option]:
    """The options of a TaskInfra and of a MapInfra; what only one of them has says so."""
    doors = {cls.__name__: {each.option: each for each in _options_of(cls, "infra.")} for cls in (TaskInfra, MapInfra)}
    of_launcher = {option.option.rpartition(".")[2]: option.meaning for option in launcher_options()}
    for name in {name: None for options in doors.values() for name in options}:
        variants = [(door, options[name]) for door, options in doors.items() if name in options]
        is_shared = len(variants) == len(doors) and len({option for _, option in variants}) == 1
        for door, option in variants[:1] if is_shared else variants:
            meaning = option.meaning or of_launcher.get(name.rpartition(".")[2].removeprefix("slurm_"), "")
            yield dataclasses.replace(option, meaning=meaning if is_shared else f"{meaning} ({door})")


def _options_of(cls: type, prefix: str) -> Iterator[Option]:
    """The fields of a class and its bases: one that gives a field a new default need not describe it again."""
    found: dict[str, Option] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith(("hydra_exca.", "hydra_plugins.")):
            for name, kind, meaning in _described_fields(base):
                meaning = meaning or (found[name].meaning if name in found else "")
                found[name] = Option(prefix + name, kind, _default_of(cls, name), meaning)
    return iter(found.values())


def _described_fields(cls: type) -> Iterator[tuple[str, str, str]]:
    """Name, type and comment of each public field that the class itself declares."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            above = itertools.takewhile(lambda line: line.strip().startswith("# "), reversed(lines[: node.lineno - 1]))
            comment = " ".join(line.strip(" #") for line in reversed(list(above)))
            yield node.target.id, _type_text(node.annotation), comment


def _type_text(annotation: ast.expr) -> str:
    """A type as people write it.

    >>> [_type_text(ast.parse(text).body[0].value) for text in ("Optional[int]", "tp.Annotated[int, ge(0)]")]
    ['int | None', 'int']
    >>> _type_text(ast.parse("tp.Literal['a', 'b'] | None").body[0].value)
    "'a' | 'b' | None"
    """
    match annotation:
        case ast.BinOp(left, _, right):
            return f"{_type_text(left)} | {_type_text(right)}"
        case ast.Subscript(value, inner):
            name = ast.unparse(value).rpartition(".")[2]
            parts = [_type_text(part) for part in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]
            kinds = {"Optional": f"{parts[0]} | None", "Annotated": parts[0], "Literal": " | ".join(parts)}
            return kinds.get(name, f"{name.lower()}[{', '.join(parts)}]")
    return ast.unparse(annotation).rpartition(".")[2].replace("PositiveInt", "int")


def _default_of(cls: type, name: str) -> str:
    of_dataclass = {field.name: field for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    field: tp.Any = getattr(cls, "model_fields", of_dataclass)[name]
    is_made = field.default_factory not in (None, dataclasses.MISSING)
    default = field.default_factory() if is_made else field.default
    return "" if dataclasses.is_dataclass(default) else json.dumps(default, default=str)
