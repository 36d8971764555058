"""The code of cells: which definitions and values a task reaches."""

from __future__ import annotations

import sys
import types

import pytest

from hydra_exca.identity import cells

UNREADABLE = {
    "a length": "class Loader:\n    def __len__(self): raise TypeError('it is a stream')",
    "any attribute": "class Loader:\n    def __getattr__(self, name): raise RuntimeError('no connection')",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_variable_whose_value_raises_does_not_count(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("__main__")  # without a file: typed
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(f"{text}\nloader = Loader()\nSCALE = 3\ndef task(cfg): return SCALE, loader", vars(module))
    reached = cells.reached_code([vars(module)["task"]])
    assert {"task", "SCALE"} <= reached.keys() and "loader" not in reached


def test_a_variable_may_be_a_long_chain_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    text = "class Node:\n    def __init__(self, other): self.other = other\nnode = None\n"
    exec(f"{text}for _ in range(5000): node = Node(node)\ndef task(cfg): return node", vars(module))
    assert {"task", "Node.__init__"} <= cells.reached_code([vars(module)["task"]]).keys()
