"""What a function carries beside its name counts, and nothing that changes from run to run does."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
import pathlib
import subprocess
import sys
import threading
import types
import typing as tp

import pydantic
import pytest

from hydra_exca.errors import ConfigError
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


class Model(pydantic.BaseModel):
    layers: tp.Any

    def run(self, config: tp.Any) -> tp.Any: ...


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
    "an object in a captured one": lambda value: capturing(holding(value)),
    "a default of a lambda": with_default,
    "the object of a method": lambda value: Trainer(value).run,
    "the slots of its object": lambda value: Slotted(value).run,
    "the fields of its model": lambda value: Model(layers=value).run,
    "a callable object": Trainer,
    "a decorator": lambda value: scaled(value)(task),
    "a decorator below a partial": lambda value: functools.partial(scaled(value)(task), other=1),
    "a method of a list": lambda value: [value].append,
}


@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS.keys())
@pytest.mark.parametrize(
    ("one", "other"), [(1, 2), ([64], [128]), (holding(1), holding(2))], ids=["int", "list", "object"]
)
def test_whatever_carries_a_value_counts_by_it(carry: tp.Any, one: tp.Any, other: tp.Any) -> None:
    assert carried_values(carry(one)) == carried_values(carry(one)) != carried_values(carry(other))


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


def test_a_function_of_a_library_counts_by_its_name_alone() -> None:
    assert carried_values(functools.partial(task, json.dumps)) == {"argument 0": {"function": "json.dumps"}}
    assert carried_values(functools.lru_cache(task)) == {}


@pytest.mark.parametrize(
    "value", [threading.Lock(), object(), iter([1]), {}.items()], ids=lambda each: type(each).__name__
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
    exec(compile(text, str(path), "exec"), names)
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
        "print(code_digest(outer()), code_digest(names['f']))\n"
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
        "e261022612ac93bec5640e56420203653d0a64ec5cf9ed7a96153917128caae9"
    )


# -- names


def test_a_function_goes_by_its_own_name_below_all_that_is_around_it() -> None:
    function = functools.partial(scaled(2)(task), 1)
    assert factory_name(function) == f"{__name__}.task"
    assert factory_name(Trainer(1)) == f"{__name__}.Trainer"
