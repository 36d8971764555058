"""What a job changes in the script that it has loaded: whoever refers to a changed object sees the change."""

from __future__ import annotations

import collections
import pickle
import sys
import types
import typing as tp

import pytest

from hydra_exca.sweep.job.script_changes import apply_changes

CLASSES = """
import collections
class Plain:
    def __init__(self, x): self.x = x
class Attributes(dict):
    __getattr__ = dict.__getitem__
class Items(list): ...
class Number(int): ...
class Slots:
    __slots__ = "x"
    def __init__(self, x): self.x = x
"""
# made twice: by loading the script, and with what the program has set
VALUES: dict[str, tuple[str, str]] = {
    "dict": ("{'x': 1}", "{'x': 2, 'y': 3}"),
    "defaultdict": ("collections.defaultdict(list, x=1)", "collections.defaultdict(list, x=2)"),
    "Counter": ("collections.Counter('aab')", "collections.Counter('abb')"),
    "OrderedDict": ("collections.OrderedDict(a=1, b=2)", "collections.OrderedDict(b=2, a=1)"),
    "own dict": ("Attributes(x=1)", "Attributes(x=2)"),
    "list": ("[1]", "[2, 3]"),
    "own list": ("Items([1])", "Items([2])"),
    "set": ("{1}", "{2}"),
    "deque": ("collections.deque([1])", "collections.deque([2])"),
    "object": ("Plain(1)", "Plain(2)"),
}
REPLACED = {"own number": ("Number(1)", "Number(2)"), "own slots": ("Slots(1)", "Slots(2)"), "text": ("'a'", "'b'")}


def content(value: tp.Any) -> tp.Any:
    state = {name: getattr(value, name) for name in ("x",) if not isinstance(value, dict) and hasattr(value, name)}
    return [type(value), state or (value, list(value) if hasattr(value, "__iter__") else None)]


@pytest.mark.parametrize("name", [*VALUES, *REPLACED])
def test_a_job_has_the_value_of_the_launch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(CLASSES, vars(main))
    loaded, launched = (eval(text, vars(main)) for text in {**VALUES, **REPLACED}[name])
    vars(main).update(conf=loaded, other=loaded)
    apply_changes([(None, ("conf",), pickle.loads(pickle.dumps(launched)), False)])
    assert content(vars(main)["conf"]) == content(launched)
    if name in VALUES:
        assert content(vars(main)["other"]) == content(launched)


def test_the_size_of_a_deque_is_that_of_the_launch() -> None:
    module = types.ModuleType("settings")
    vars(module)["queue"] = collections.deque([1])
    apply_changes([(module, ("queue",), collections.deque([1, 2], 2), False)])
    assert vars(module)["queue"].maxlen == 2
