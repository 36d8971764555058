"""Models described by plain data, made with the TaskInfra of this library or of exca, and what becomes of them.

exca answers from a process of its own (`asking_exca`): importing it changes loggers and yaml of its process for good.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import types
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
from places import SUPPORT

OURS, THEIRS = "hydra_exca", "exca"
REQUIRED = "=required="
Values = dict[str, tp.Any]
Step = tuple[tp.Any, ...]
Oracle = tp.Callable[..., tp.Any]


@dataclasses.dataclass(frozen=True)
class Field:
    name: str
    kind: str
    default: tp.Any = REQUIRED


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a model class is like. The forms say how the names that are left out of the uid are given."""

    fields: tuple[Field, ...]
    version: str = "1"
    class_excludes: tuple[str, ...] = ()
    class_form: str = "tuple"
    cache_excludes: tuple[str, ...] = ()
    cache_form: str = "tuple"


# -- classes ----------------------------------------------------------------------------------------------------------


class Adam(pydantic.BaseModel, extra="forbid"):
    name: tp.Literal["adam"] = "adam"
    lr: float = 0.1


class Sgd(pydantic.BaseModel, extra="forbid"):
    name: tp.Literal["sgd"] = "sgd"
    momentum: int = 0


class Sub(pydantic.BaseModel, extra="forbid"):
    a: int = 1
    b: float = 0.5
    device: str = "cpu"
    _exclude_from_cls_uid: tp.Any = ("device",)


class More(Sub):
    c: int = 1


class Deep(pydantic.BaseModel, extra="forbid"):
    n: int = 1
    sub: Sub = Sub(a=2)


Optim = tp.Annotated[Adam | Sgd, pydantic.Field(discriminator="name")]


@functools.cache
def kinds(library: str) -> dict[str, tp.Any]:
    """The annotations of fields, by the names that shapes have for them."""
    return {
        "int": int,
        "float": float,
        "str": str,
        "bool": bool,
        "tuple": tuple[int, ...],
        "pair": tuple[str, float],
        "list": list[int],
        "strs": list[str],
        "dict": dict[str, int],
        "dicts": dict[str, dict[str, int]],
        "optional": int | None,
        "optional float": float | None,
        "literal": tp.Literal["a", "b", 3],
        "path": Path,
        "sub": Sub,
        "deep": Deep,
        "optional sub": Sub | None,
        "subs": list[Sub],
        "named subs": dict[str, Sub],
        "union": Optim,
        "unions": list[Optim],
        "cached": _cached(library),
        "number": int | float,
        "any": tp.Any,
        "hidden": tp.Annotated[int, pydantic.Field(exclude=True)],
    }


def _cached(library: str) -> type[pydantic.BaseModel]:
    task_infra = importlib.import_module(library).TaskInfra

    class Cached(pydantic.BaseModel):
        x: int = 1
        infra: task_infra = task_infra(version="2")  # type: ignore[valid-type]

        @infra.apply  # type: ignore[attr-defined, untyped-decorator]
        def fit(self) -> int:
            return self.x

    return Cached


class Runs:
    """The runs of a program, numbered: a method returns the number of its run, or raises it."""

    def __init__(self) -> None:
        self.count = 0
        self.fail = False

    def next(self) -> int:
        self.count += 1
        if self.fail:
            raise ValueError(f"run {self.count}")
        return self.count


def model(library: str, shape: Shape, runs: Runs | None = None) -> tp.Any:
    """The class that a shape describes."""
    runs = runs or Runs()
    task_infra = importlib.import_module(library).TaskInfra
    infra = task_infra(version=shape.version)
    names = list(shape.cache_excludes)

    def fit(self: tp.Any) -> int:
        return runs.next()

    def left_out(self: tp.Any) -> list[str]:
        return names

    forms = {"tuple": tuple(names), "list": names, "function": left_out, "method": "method:left_out"}
    namespace: dict[str, tp.Any] = {
        "__module__": __name__,
        "__annotations__": {f.name: kinds(library)[f.kind] for f in shape.fields} | {"infra": task_infra},
        "infra": infra,
        "left_out": left_out,
        "fit": infra.apply(exclude_from_cache_uid=forms[shape.cache_form])(fit),
        **{f.name: _default(library, f) for f in shape.fields if f.default != REQUIRED},
        **_class_exclusions(shape),
    }
    return types.new_class("Model", (pydantic.BaseModel,), {"extra": "forbid"}, lambda body: body.update(namespace))


def _class_exclusions(shape: Shape) -> dict[str, tp.Any]:
    names = shape.class_excludes
    forms = {"tuple": names, "list": list(names), "set": set(names), "method": lambda self: names}
    return {"_exclude_from_cls_uid": forms[shape.class_form]} if names else {}


def _default(library: str, field: Field) -> tp.Any:
    return pydantic.TypeAdapter(kinds(library)[field.kind]).validate_python(field.default)


# -- what can be asked ------------------------------------------------------------------------------------------------


def config(library: str, shape: Shape, values: Values, uid: bool, lean: bool) -> tp.Any:
    """A configuration as JSON has it."""
    return _plain(model(library, shape)(**values).infra.config(uid=uid, exclude_defaults=lean), uid)


def clone(library: str, shape: Shape, values: Values, patch: Values) -> tp.Any:
    """The configuration of a clone, as JSON has it."""
    made = model(library, shape)(**values).infra.clone_obj(patch)
    return _plain(made.infra.config(uid=False), False)


def _plain(config: tp.Any, uid: bool) -> tp.Any:
    """JSON; where all the settings of infras show, without them: each library has its own."""
    if isinstance(config, dict):
        return {key: _plain(value, uid) for key, value in config.items() if uid or key != "infra"}
    if isinstance(config, (list, tuple)):
        return [_plain(value, uid) for value in config]
    return json.loads(json.dumps(config, default=str))


def shared(library: str, shape: Shape, one: Values, other: Values) -> bool:
    """Whether two objects of a class have one cache."""
    cls = model(library, shape)
    return bool(cls(**one).infra.uid() == cls(**other).infra.uid())


def play(library: str, shape: Shape, steps: tp.Sequence[Step]) -> list[tuple[tp.Any, int]]:
    """What each step of a program gives ("error" if it raises), with the number of runs until then."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(library, shape, folder)
        return [stage.step(*step) for step in steps]


class Stage:
    """Where a program plays: some objects of one class, one folder."""

    def __init__(self, library: str, shape: Shape, folder: str) -> None:
        self.runs = Runs()
        self.model = model(library, shape, self.runs)
        self.folder = folder
        self.objects: dict[str, tp.Any] = {}

    def step(self, verb: str, *args: tp.Any) -> tuple[tp.Any, int]:
        try:
            outcome = getattr(self, verb)(*args)
        except Exception:  # noqa: BLE001 - each library raises errors of its own
            outcome = "error"
        return outcome, self.runs.count

    def new(self, name: str, values: Values, settings: Values) -> None:
        self.objects[name] = self.model(**values, infra={"folder": self.folder, **settings})

    def assign(self, name: str, field: str, value: tp.Any) -> None:
        setattr(self.objects[name], field, value)

    def clone(self, name: str, source: str, patch: Values) -> None:
        self.objects[name] = self.objects[source].infra.clone_obj(patch)

    def restart(self) -> None:
        """New objects like the old ones, as the next process makes them."""
        self.objects = {name: type(obj)(**obj.model_dump()) for name, obj in self.objects.items()}

    def call(self, name: str) -> tp.Any:
        return self.objects[name].fit()

    def job(self, name: str) -> tp.Any:
        return self.objects[name].infra.job().result()

    def status(self, name: str) -> tp.Any:
        return self.objects[name].infra.status()

    def clear(self, name: str) -> None:
        self.objects[name].infra.clear_job()

    def array(self, names: tp.Sequence[str], repeated: bool = False) -> None:
        with self.objects[names[0]].infra.job_array(allow_repeated_tasks=repeated) as tasks:
            tasks.extend(self.objects[name] for name in names)

    def fail(self, whether: bool) -> None:
        self.runs.fail = whether


def through_super(library: str) -> list[str]:
    """What a parent returns, and then a child that calls the same method by ``super()`` and replaces a part of it."""
    task_infra = importlib.import_module(library).TaskInfra

    class Parent(pydantic.BaseModel):
        infra: task_infra = task_infra()  # type: ignore[valid-type]

        @infra.apply  # type: ignore[attr-defined, untyped-decorator]
        def fit(self) -> str:
            return self.part()

        def part(self) -> str:
            return "parent"

    class Child(Parent):
        def fit(self) -> str:
            return str(super().fit())

        def part(self) -> str:
            return "child"

    with tempfile.TemporaryDirectory() as folder:
        return [cls(infra={"folder": folder}).fit() for cls in (Parent, Child)]


def patched(library: str, start: Values, patches: tp.Sequence[Values]) -> list[str]:
    """A ConfDict after each update: itself as JSON, order included, or "error", which ends it."""
    config = importlib.import_module(library).ConfDict(start)
    told: list[str] = []
    for patch in patches:
        try:
            config.update(patch)
        except (TypeError, ValueError, IndexError):
            return [*told, "error"]
        told.append(json.dumps([config, config.flat()]))
    return told


def same_uid(library: str, one: Values, other: Values) -> bool:
    """Whether two dictionaries have the same uid."""
    confdict = importlib.import_module(library).ConfDict
    return bool(confdict(one).to_uid() == confdict(other).to_uid())


_ASKED: dict[str, tp.Callable[..., tp.Any]] = {
    each.__name__: each for each in (config, clone, shared, play, through_super, patched, same_uid)
}


def answer(library: str, asked: str, *args: tp.Any) -> tp.Any:
    """What a library answers; the name of the error if it raises one."""
    try:
        return _ASKED[asked](library, *args)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other library is to do the same
        return f"error: {type(error).__name__}"


# -- the other process ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def asking_exca() -> Iterator[Oracle]:
    """A function that answers like `answer`, for exca, in a process of its own."""
    program = [sys.executable, "-c", f"import {__name__}; {__name__}.serve()"]
    env = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=errors, env=env) as process,
    ):
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def ask(*question: tp.Any) -> tp.Any:
            try:
                pickle.dump(question, stdin)
                stdin.flush()
                return pickle.load(stdout)
            except (EOFError, BrokenPipeError) as error:
                errors.seek(0)
                raise RuntimeError(f"the process with exca has ended:\n{errors.read().decode()}") from error

        yield ask


def serve() -> None:
    """Answers for exca until the questions end."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    importlib.import_module(THEIRS)
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(THEIRS, *question), out)
        out.flush()
