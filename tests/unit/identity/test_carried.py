"""What a function carries beside its name counts, and nothing that changes from run to run does."""

from __future__ import annotations

import abc
import argparse
import collections
import contextlib
import dataclasses
import enum
import functools
import io
import itertools
import json
import logging
import math
import pathlib
import random
import subprocess
import sys
import threading
import types
import typing as tp

import hydra
import numpy as np
import pydantic
import pytest

from hydra_exca.errors import ConfigError
from hydra_exca.identity import canonical
from hydra_exca.identity.carried import carried_values, code_digest, factory_name

log = logging.getLogger(__name__)


def task(config: tp.Any) -> tp.Any: ...


def test_a_function_of_a_module_carries_nothing() -> None:
    assert carried_values(task) == {}


# -- golden values: those of the first rules, where these counted, and those of what they had dropped


def capturing(value: tp.Any) -> tp.Callable[[tp.Any], tp.Any]:
    def inner(config: tp.Any) -> tp.Any:
        return value

    return inner


CONSTANTS: dict[str, tuple[tp.Any, dict[str, tp.Any]]] = {
    "an argument": (functools.partial(task, scale=3), {"argument scale": 3}),
    "a positional argument": (functools.partial(task, "a"), {"argument 0": "a"}),
    "a function": (functools.partial(task, act=math.sin), {"argument act": {"function": "math.sin"}}),
}
NEWLY_COUNTED: dict[str, tuple[tp.Any, dict[str, tp.Any]]] = {
    "a list": (functools.partial(task, layers=[64]), {"argument layers": [64]}),
    "a dict of lists": (functools.partial(task, opt={"lr": [1, 2]}), {"argument opt": {"lr": [1, 2]}}),
    "a namespace": (
        functools.partial(task, args=argparse.Namespace(k=1)),
        {"argument args": {"object": "argparse.Namespace", "attribute k": 1}},
    ),
}


@pytest.mark.parametrize(("function", "forms"), [*CONSTANTS.values(), *NEWLY_COUNTED.values()])
def test_arguments_of_a_partial_count(function: tp.Any, forms: dict[str, tp.Any]) -> None:
    assert carried_values(function) == forms


# -- each kind of carrier, with two states


class Trainer:
    def __init__(self, layers: tp.Any) -> None:
        self.layers = layers

    def run(self, config: tp.Any) -> tp.Any: ...

    def __call__(self, config: tp.Any) -> tp.Any: ...


class OtherTrainer(Trainer): ...


class Slotted:
    __slots__ = ("layers",)

    def __init__(self, layers: tp.Any) -> None:
        self.layers = layers

    def run(self, config: tp.Any) -> tp.Any: ...


class Model(pydantic.BaseModel, extra="allow"):
    layers: tp.Any = None

    def run(self, config: tp.Any) -> tp.Any: ...


@dataclasses.dataclass(slots=True)
class Record:
    layers: tp.Any

    def run(self, config: tp.Any) -> tp.Any: ...


class Pickled(Trainer):
    """Says itself how it is pickled."""

    def __getstate__(self) -> tp.Any:
        return {"a": "b"}


class PickledSlots(Slotted):
    __slots__ = ()

    def __getstate__(self) -> tp.Any:
        return None


def bound(value: tp.Any) -> tp.Any:
    """An object that another one is bound to as a method."""
    return types.MethodType(Trainer(value), OtherTrainer(1))


def local_class(value: tp.Any) -> tp.Any:
    class Local:
        def run(self, config: tp.Any) -> tp.Any:
            return self(config)

        def __call__(self, config: tp.Any) -> tp.Any:
            return value

    return Local


def local_class_by(kind: str, value: tp.Any) -> tp.Any:
    """A local class that differs by something other than what its methods have captured."""

    class Plain:
        factor = value if kind == "attribute" else None
        __call__: tp.Any = lambda self, config: 1

        @property
        def size(self) -> tp.Any:
            return value if kind == "property" else None

        @staticmethod
        def static() -> tp.Any:
            return value if kind == "static" else None

    class Child(Plain): ...

    return Child if kind == "base" else Plain


class Wrapper:
    def __init__(self, function: tp.Any) -> None:
        functools.update_wrapper(self, function)

    def __call__(self, config: tp.Any) -> tp.Any: ...


class OtherWrapper(Wrapper): ...


def scaled(factor: tp.Any) -> tp.Callable[[tp.Any], tp.Any]:
    def decorate(function: tp.Any) -> tp.Any:
        @functools.wraps(function)
        def wrapper(config: tp.Any) -> tp.Any:
            return function(config) * factor

        return wrapper

    return decorate


def with_default(value: tp.Any) -> tp.Callable[[tp.Any], tp.Any]:
    return lambda config, value=value: value


def holding(value: tp.Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(inner=[value])


CARRIERS: dict[str, tp.Callable[[tp.Any], tp.Any]] = {
    "a partial": lambda value: functools.partial(task, value),
    "a partial of a partial": lambda value: functools.partial(functools.partial(task, value), other=1),
    "a captured variable": capturing,
    "a captured function's own": lambda value: capturing(capturing(value)),
    "a captured partial's argument": lambda value: capturing(functools.partial(task, value)),
    "that of a library's function": lambda value: capturing(functools.partial(json.dumps, value)),
    "a captured function below a library's decorator": lambda value: capturing(
        contextlib.contextmanager(capturing(value))
    ),
    "an object in a captured one": lambda value: capturing(holding(value)),
    "a default of a lambda": with_default,
    "the object of a method": lambda value: Trainer(value).run,
    "an object that is a method": bound,
    "the slots of its object": lambda value: Slotted(value).run,
    "the fields of its model": lambda value: Model(layers=value).run,
    "the extra fields of its model": lambda value: Model(more=value).run,
    "the fields of its slotted dataclass": lambda value: Record(value).run,
    "an object with a __getstate__": lambda value: functools.partial(task, Pickled(value)),
    "a callable one": Pickled,
    "the object of a method that has one": lambda value: Pickled(value).run,
    "the slots of such an object": lambda value: PickledSlots(value).run,
    "an object of a local class": lambda value: local_class(value)(),
    "a captured one": lambda value: capturing(local_class(value)()),
    "a method of one": lambda value: local_class(value)().run,
    "a local class": local_class,
    "its attributes": lambda value: local_class_by("attribute", value)(),
    "its properties": lambda value: local_class_by("property", value)(),
    "its static methods": lambda value: local_class_by("static", value)(),
    "its local base": lambda value: local_class_by("base", local_class(value))(),
    "a callable object": Trainer,
    "a decorator": lambda value: scaled(value)(task),
    "a decorator below a partial": lambda value: functools.partial(scaled(value)(task), other=1),
    "a method of a list": lambda value: [value].append,
    "a special method of a list": lambda value: capturing([value].__iter__),
}


@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS.keys())
@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (1, None), ([64], [128]), (holding(1), holding(2)), ([log, 1], [1, log])],
    ids=["int", "None", "list", "object", "list with a logger"],
)
def test_whatever_carries_a_value_counts_by_it(carry: tp.Any, one: tp.Any, other: tp.Any) -> None:
    assert carried_values(carry(one)) == carried_values(carry(one)) != carried_values(carry(other))


def test_a_none_counts() -> None:
    assert carried_values(functools.partial(task, model=None)) == {"argument model": None}

    class Defaulted:
        x = 5

        def __call__(self, config: tp.Any) -> tp.Any: ...

    unset, changed = Defaulted(), Defaulted()
    changed.x = None  # type: ignore[assignment]
    assert carried_values(unset) != carried_values(changed)


class Reduced(Trainer):
    def __reduce__(self) -> tp.Any:
        return Reduced, (1,)


class Bound(Reduced):
    def __get__(self, owner: tp.Any, cls: tp.Any = None) -> tp.Any: ...


@pytest.mark.parametrize("carry", [lambda each: each, lambda each: each.run], ids=["the object", "a method"])
def test_an_object_that_says_how_it_is_pickled_has_no_form(carry: tp.Any) -> None:
    with pytest.raises(ConfigError, match="self: a .*Reduced has no canonical form"):
        carried_values(carry(Reduced(1)))


def test_state_that_python_does_not_see_is_no_state_without_it() -> None:
    """Neither attributes nor slots: the buffer has a __getstate__ of its own."""

    class Buffer(io.BytesIO): ...

    for value in (io.BytesIO(b"a"), Buffer(b"a")):
        with pytest.raises(ConfigError, match="has no canonical form"):
            carried_values(functools.partial(task, value))


def test_a_model_that_holds_an_object_counts_by_its_fields() -> None:
    """Which of them were set does not count, as in a configuration."""
    forms = [
        carried_values(functools.partial(task, model))
        for model in (Model(layers=Trainer(1)), Model(layers=Trainer(2)), Model(layers=Trainer(1), more=1))
    ]
    assert forms[0] == {
        "argument 0": {
            "object": f"{__name__}.Model",
            "attribute layers": {"object": f"{__name__}.Trainer", "attribute layers": 1},
        }
    }
    assert forms[0] != forms[1] and forms[0] != forms[2]


def test_the_names_of_a_local_class_and_of_its_bases_count() -> None:
    def with_base(base: type) -> tp.Any:
        class Local(base):  # type: ignore[misc]
            pass

        return Local(1)

    assert carried_values(with_base(Trainer)) != carried_values(with_base(OtherTrainer))


def test_a_local_class_that_refers_to_itself_is_read_once() -> None:
    class Local:
        def __call__(self, config: tp.Any) -> tp.Any:
            return Local()

    assert carried_values(Local()) == carried_values(Local())


@pytest.mark.parametrize("decorate", [dataclasses.dataclass, functools.total_ordering, lambda cls: cls])
def test_local_classes_of_all_kinds_can_be_read(decorate: tp.Any) -> None:
    class Base(abc.ABC):  # noqa: B024
        logger = log

        @functools.cached_property
        def size(self) -> int:
            return 1

        @classmethod
        def make(cls) -> tp.Any:
            return cls()

        def __lt__(self, other: tp.Any) -> bool:
            return True

    class Local(Base):
        x: list[int] = dataclasses.field(default_factory=list) if decorate is dataclasses.dataclass else []
        __slots__ = ()

        def __call__(self, config: tp.Any) -> tp.Any: ...

    one, other = (carried_values(decorate(Local)()) for _ in range(2))
    assert one == other


def negated(function: tp.Any) -> tp.Any:
    @functools.wraps(function)
    def wrapper(config: tp.Any) -> tp.Any:
        return -function(config)

    return wrapper


def doubled(function: tp.Any) -> tp.Any:
    @functools.wraps(function)
    def wrapper(config: tp.Any) -> tp.Any:
        return 2 * function(config)

    return wrapper


def test_two_decorators_differ_by_what_they_do() -> None:
    forms = [carried_values(function) for function in (task, negated(task), doubled(task), negated(doubled(task)))]
    assert all(one != other for one, other in itertools.combinations(forms, 2))
    assert carried_values(negated(task)) == forms[1]
    assert forms[3].keys() == {"code", "code'"}
    assert carried_values(Wrapper(task)) != carried_values(OtherWrapper(task))


def test_the_class_of_an_object_counts_where_the_method_is_a_parents() -> None:
    assert carried_values(Trainer(1).run) != carried_values(OtherTrainer(1).run)


def test_the_local_class_that_is_captured_counts_by_its_code() -> None:
    def local(result: int) -> type:
        if result == 1:

            class Net:
                def size(self) -> int:
                    return 1
        else:

            class Net:  # type: ignore[no-redef]
                def size(self) -> int:
                    return 2

        return Net

    assert carried_values(capturing(local(1))) != carried_values(capturing(local(2)))


def local_values(number: int) -> dict[str, tp.Any]:
    @dataclasses.dataclass(frozen=True)
    class Part:
        size: int = 1

        def run(self) -> int:
            return number

    @dataclasses.dataclass(slots=True)
    class Slotted:
        size: int = 1

        def run(self) -> int:
            return number

    class Model(pydantic.BaseModel):
        part: tp.Any = None

        def run(self) -> int:
            return number

    class Kind(enum.Enum):
        ONLY = number

    class Plain:
        def run(self) -> int:
            return number

    class Names(list):  # type: ignore[type-arg]
        def run(self) -> int:
            return number

    values = {"part": Part(), "slotted": Slotted(), "model": Model(), "enum": Kind.ONLY, "plain": Plain()}
    values |= {"in a list": [Part()], "in a dict": {"k": Kind.ONLY}, "in a set": {Part()}, "a key": {Kind.ONLY: 1}}
    return {**values, "in a model": Model(part=Part()), "a subclass": Names(), "a method": Part().run}


@pytest.mark.parametrize("kind", local_values(1))
def test_a_value_of_a_local_class_counts_by_the_code_of_its_class(kind: str) -> None:
    one, same, other = (carried_values(functools.partial(task, local_values(number)[kind])) for number in (1, 1, 2))
    assert canonical.encode(one) == canonical.encode(same) != canonical.encode(other)


def test_objects_and_functions_that_refer_to_themselves_are_read_once() -> None:
    trainer = Trainer(1)
    trainer.layers = [trainer, trainer.run]

    def again(config: tp.Any) -> tp.Any:
        return again(config)

    assert carried_values(trainer.run) == carried_values(trainer.run)
    assert carried_values(again) == carried_values(again)


# -- what does not count


@pytest.mark.parametrize("value", [log, logging.LoggerAdapter(log, {}), math, argparse], ids=repr)
def test_modules_and_loggers_never_count(value: tp.Any) -> None:
    assert carried_values(functools.partial(task, value)) == {}


def test_of_a_container_only_modules_and_loggers_do_not_count() -> None:
    """In lists the others keep their places."""
    carried = carried_values(functools.partial(task, {"log": log, "n": 1, "deep": [math, 2, {"m": math}]}))
    assert carried == {"argument 0": {"n": 1, "deep": [{"~uncounted": None}, 2, {}]}}


def test_a_function_of_a_library_counts_by_its_name_alone() -> None:
    assert carried_values(functools.partial(task, json.dumps)) == {"argument 0": {"function": "json.dumps"}}
    assert carried_values(functools.partial(task, str.join)) == {"argument 0": {"function": "builtins.str.join"}}
    assert carried_values(functools.lru_cache(task)) == {}
    assert carried_values(contextlib.contextmanager(task)) == {}
    assert carried_values(hydra.main(version_base=None)(task)) == {}


@pytest.mark.parametrize("value", [log.info, logging.LoggerAdapter(log, {"run": 1}).info, random.uniform])
def test_functions_of_libraries_and_methods_of_loggers_count_by_their_names(value: tp.Any) -> None:
    name = f"{value.__module__}.{value.__qualname__}"
    assert carried_values(functools.partial(task, value)) == {"argument 0": {"function": name}}


@pytest.mark.parametrize("value", [random.random, random.getrandbits, np.random.rand])
def test_a_method_that_a_library_has_as_a_function_is_one(value: tp.Any) -> None:
    """However it is written: in C, a method knows no module."""
    name = f"{type(value.__self__).__module__}.{value.__qualname__}".replace("numpy.random.mtrand", "numpy.random")
    assert carried_values(capturing(value))["captured value"] == {"function": name}


def test_a_method_of_a_librarys_object_counts_by_its_object() -> None:
    methods = [pathlib.Path("a").read_text, pathlib.Path("b").read_text]
    methods += [collections.Counter("ab").most_common, collections.Counter("abb").most_common]
    methods += [collections.UserList([1]).count, collections.UserList([2]).count]
    assert len({canonical.encode(carried_values(functools.partial(task, method))) for method in methods}) == 6
    with pytest.raises(ConfigError, match="draw.self: a random:Random has no canonical form"):
        carried_values(functools.partial(task, draw=random.Random(1).uniform))
    with pytest.raises(ConfigError, match="draw.self: a random:Random has no canonical form"):
        carried_values(functools.partial(task, draw=random.Random(1).random))


@pytest.mark.parametrize(
    "value", [threading.Lock(), object(), iter([1]), {}.items(), Bound(1)], ids=lambda each: type(each).__name__
)
def test_what_has_no_canonical_form_is_an_error_that_names_it(value: tp.Any) -> None:
    with pytest.raises(ConfigError, match="handle.*has no canonical form"):
        carried_values(functools.partial(task, handle=value))


def test_all_that_has_none_is_named_at_once_by_its_path() -> None:
    trainer = Trainer({"lock": threading.Lock()})
    with pytest.raises(ConfigError) as raised:
        carried_values(functools.partial(trainer.run, handle=threading.Lock()))
    assert [problem.key for problem in raised.value.problems] == ["handle", "layers.lock"]


def test_what_is_left_out_needs_no_canonical_form() -> None:
    function = functools.partial(Trainer({"lock": threading.Lock(), "size": 1}).run, handle=threading.Lock())
    forms = carried_values(function, lambda name: name in ("handle", "layers.lock"))
    assert forms == {"attribute layers": {"size": 1}}


# -- code


def functions_of(path: pathlib.Path, text: str) -> dict[str, tp.Any]:
    """What a file defines. pytest changes the code of tests themselves."""
    path.write_text(text)
    names: dict[str, tp.Any] = {}
    exec(compile(text, str(path), "exec", dont_inherit=True), names)
    return names


def test_two_lambdas_of_one_line_differ_by_what_they_do(tmp_path: pathlib.Path) -> None:
    names = functions_of(tmp_path / "a.py", "one, two, same = lambda c: c + 1, lambda c: c + 2, lambda c: c + 1\n")
    assert code_digest(names["one"]) != code_digest(names["two"])
    assert code_digest(names["one"]) == code_digest(names["same"])


def test_comments_and_layout_are_no_code(tmp_path: pathlib.Path) -> None:
    one = functions_of(tmp_path / "a.py", "f = lambda c: [c,1]\n")["f"]
    other = functions_of(tmp_path / "b.py", "\n\nf = (lambda c:  # a list\n    [c, 1])\n")["f"]
    assert code_digest(one) == code_digest(other)


def test_a_function_whose_file_was_edited_since_counts_by_what_runs(tmp_path: pathlib.Path) -> None:
    one = functions_of(tmp_path / "a.py", "f = lambda c: 1\n")["f"]
    (tmp_path / "a.py").write_text("f = lambda c: 2\n")
    two = functions_of(tmp_path / "b.py", "f = lambda c: 2\n")["f"]
    assert code_digest(one) != code_digest(two)


@pytest.mark.app
def test_code_is_the_same_under_each_hash_seed(tmp_path: pathlib.Path) -> None:
    """A set in the code is written in another order each time, and its source may not be at hand."""
    (tmp_path / "a.py").write_text(
        "from hydra_exca.identity.carried import code_digest\n"
        "def outer():\n    def f(x): return x in {'a', 'b', 'c', 'd'}\n    return f\n"
        'names = {}\nexec(\'f = lambda x: x in {"a", "b", "c", "d"}\', names)\n'
        "import functools\n"
        "from hydra_exca.identity.carried import carried_values\n"
        "def decorate(f):\n    @functools.wraps(f)\n    def wrapper(c): return f(c) in {'a', 'b', 'c'}\n"
        "    return wrapper\n"
        "@decorate\ndef task(c): ...\n"
        "def local():\n    class L:\n        names = {'a', 'b', 'c'}\n        def __call__(self, c): ...\n"
        "    return L()\n"
        "print(code_digest(outer()), code_digest(names['f']), carried_values(task), carried_values(local()))\n"
    )
    seeds = [
        subprocess.run(
            [sys.executable, "a.py"],
            env={"PYTHONHASHSEED": seed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    ]
    assert len(set(seeds)) == 1


def test_the_digest_of_a_syntax_tree_is_the_same_in_each_python(tmp_path: pathlib.Path) -> None:
    """A golden value: each version of Python that runs the tests has to give it."""
    text = """
def outer(k):
    def f(c, *a, b=1, **d):
        x: int = k
        return f'{c!r:>{x}}' 'z', 1j, b'b', ...
    return f
"""
    assert code_digest(functions_of(tmp_path / "a.py", text)["outer"](1)) == (
        "6786d2681504fed7172b2069b5466cb934ef8fb82e5d4225ec67971a6b17b822"
    )


# -- names


def test_a_function_goes_by_its_own_name_below_all_that_is_around_it() -> None:
    function = functools.partial(scaled(2)(task), 1)
    assert factory_name(function) == f"{__name__}.task"
    assert factory_name(Trainer(1)) == f"{__name__}.Trainer"
