"""Which globals of a script the program has changed and the task function reads."""

from __future__ import annotations

import sys
import textwrap
import types
import typing as tp
from pathlib import Path

import pytest

from hydra_exca.identity.script_state import Change, read_changes

BEFORE = """
from __future__ import annotations

import argparse
import logging
import os
import random
import numpy as np
from pathlib import Path

SCALE = 1
OTHER = 1
CONF = {"k": {"deep": 1}}
ITEMS = [{"x": 1}, {"x": 2}]
NUMBERS = {"lr": 1}
ARGS = argparse.Namespace(x=1)
ARRAY = np.zeros(2)
PARSER = argparse.ArgumentParser()


class Holder:
    x = 1
    inner = {}

    @classmethod
    def configure(cls, x):
        cls.x = x

    def __init__(self):
        self.y = 1

    def change(self, y):
        self.y = y

    def change_inside(self):
        self.change(3)

    def change_by_another_name(self):
        inner = self.inner
        inner["x"] = 1


class Child(Holder): ...


HOLDER = Holder()


def read():
    return SCALE, CONF, ITEMS, NUMBERS, ARGS, ARRAY, PARSER, Holder.x, HOLDER, Child


def train(cfg):
    return read()


def no_task():
    return OTHER


if __name__ == "__main__":
"""


@pytest.fixture
def changes_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tp.Callable[..., dict[str, Change]]:
    def run(below: str, before: str = BEFORE, function: str = "train") -> dict[str, Change]:
        path = tmp_path / "script.py"
        path.write_text(before + textwrap.indent(textwrap.dedent(below).strip("\n"), "    ") + "\n")
        module = types.ModuleType("__main__")
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "__main__", module)
        exec(compile(path.read_text(), path, "exec", dont_inherit=True), vars(module))
        return {change.name: change for change in read_changes(vars(module)[function])}

    return run


BINDING = {
    "an assignment": "SCALE = 10",
    "an assignment with a type": "SCALE: int = 10",
    "several": "OTHER, (SCALE, *_) = 1, [10, 2]",
    "in a row": "OTHER = SCALE = 10",
    "in place": "SCALE += 9",
    "with": "import contextlib\nwith contextlib.nullcontext(10) as SCALE:\n    pass",
    "for": "for SCALE in [9, 10]:\n    if SCALE == 10:\n        break",
    "try": "try:\n    raise ValueError\nexcept ValueError:\n    SCALE = 10",
    "finally": "try:\n    pass\nfinally:\n    SCALE = 10",
    "else": "if not SCALE:\n    pass\nelse:\n    SCALE = 10",
    "walrus": "print(SCALE := 10)",
    "walrus in a comprehension": "print([SCALE := 10 for _ in [1]])",
    "match": "match 10:\n    case SCALE:\n        pass",
    "a nested guard": "if __name__ == '__main__':\n    if True:\n        SCALE = 10",
    "global": "def f():\n    global SCALE\n    SCALE = 10\nf()",
    "global in a method": "class A:\n    def f(self):\n        global SCALE\n        SCALE = 10\nA().f()",
    "an environment variable": "os.environ['X'] = '10'\nSCALE = int(os.environ['X'])",
}


@pytest.mark.parametrize("below", BINDING.values(), ids=BINDING.keys())
def test_whatever_binds_a_global_below_the_guard_is_seen(
    changes_of: tp.Callable[..., dict[str, Change]], below: str
) -> None:
    assert {name: each.value for name, each in changes_of(below).items() if each.has_value()} == {"SCALE": 10}


UNKNOWN = [
    "import importlib\nimportlib.import_module('__main__').SCALE = 10",
    *(
        "globals()['SCALE'] = 10",
        "exec('SCALE = 10', globals())",
        "from new import *",
        "import __main__\n__main__.SCALE = 10",
    ),
    *("import sys\nsys.modules[__name__].SCALE = 10", "import sys\nvars(sys.modules['__main__'])['SCALE'] = 10"),
]


@pytest.mark.parametrize("below", UNKNOWN)
def test_what_binds_names_that_the_text_does_not_say_may_bind_all(
    changes_of: tp.Callable[..., dict[str, Change]], below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = types.ModuleType("new")
    vars(new)["SCALE"] = 10
    monkeypatch.setitem(sys.modules, "new", new)
    assert changes_of(below)["SCALE"].value == 10


STORING = {
    "an item": ('CONF["k"] = 10', "CONF"),
    "a deep item": ('CONF["k"]["deep"] = 10', "CONF"),
    "an item in a loop": ("for CONF['k'] in [1, 2]: pass", "CONF"),
    "a deleted item": ('del CONF["k"]', "CONF"),
    "a method": ("ITEMS.append(1)", "ITEMS"),
    "a method of what a method gives": ('CONF.setdefault("a", {})["b"] = 1', "CONF"),
    "in place": ("ITEMS += [3]", "ITEMS"),
    "an attribute of a class": ("Holder.x = 10", "Holder.x"),
    "setattr": ("setattr(Holder, 'x', 10)", "Holder.x"),
    "a container of a class": ("Holder.inner['x'] = 10", "Holder.inner"),
    "a class method": ("Holder.configure(10)", "Holder.x"),
    "a class method of a parent": ("Child.configure(10)", "Child.x Holder.x"),
    "an attribute of an object": ("HOLDER.y = 10", "HOLDER.y"),
    "a method of an object": ("HOLDER.change(10)", "HOLDER"),
    "a method that calls a method": ("HOLDER.change_inside()", "HOLDER"),
    "a method with another name": ("HOLDER.change_by_another_name()", "HOLDER"),
    "another name": ("conf = CONF\nconf['k'] = 10", "CONF"),
    "another name in a function": ("def f():\n    conf = CONF['k']\n    conf['deep'] = 10\nf()", "CONF"),
    "elements": ("def f():\n    for each in ITEMS:\n        each['x'] = 3\nf()", "ITEMS"),
    "an argument": ("def f(conf):\n    conf['k'] = 10\nf(CONF)", "CONF"),
    "an argument of a library": ("random.shuffle(ITEMS)", "ITEMS"),
    "a part with another name": ('part = CONF["k"]\npart["deep"] = 10', "CONF"),
    "an element with another name": ("first, *_ = ITEMS\nfirst['x'] = 3", "ITEMS"),
    "a class with another name": ("other = Holder\nother.x = 10", "Holder.x"),
    "attributes whose names are values": (
        "for k, v in {'x': 10}.items(): setattr(Holder, k, v)",
        "Holder.inner Holder.x",
    ),
    "attributes of an object": ("for k, v in {'y': 10}.items(): setattr(HOLDER, k, v)", "HOLDER"),
    "the result of a function": ("def f(): return CONF\nf()['k'] = 10", "CONF"),
    "a part that a builtin gives": ("for part in sorted(ITEMS, key=str):\n    part['x'] = 3", "ITEMS"),
    "a method of an array": ("ARRAY.fill(3)", "ARRAY"),
    "an array as an argument": ("random.shuffle(ARRAY)", "ARRAY"),
    "a builtin that calls": ("list(map(lambda item: item.clear(), ITEMS))", "ITEMS"),
    "a part that a method gives": ("CONF.get('k')['deep'] = 10", "CONF"),
    "a part in another container": ("parts = {'k': CONF['k']}\nparts['k']['deep'] = 10", "CONF"),
    "a namespace that a parser fills": ("argparse.ArgumentParser().parse_args([], ARGS)", "ARGS"),
    "an object with another name": ("other = HOLDER\nother.y = 10", "HOLDER"),
    "global and in place": ("def f():\n    ITEMS.append(1)\nf()", "ITEMS"),
}


@pytest.mark.parametrize(("below", "name"), STORING.values(), ids=STORING.keys())
def test_whatever_stores_into_a_global_below_the_guard_is_seen(
    changes_of: tp.Callable[..., dict[str, Change]], below: str, name: str
) -> None:
    assert list(changes_of(below)) == name.split()


@pytest.mark.parametrize("below", ["CONF['k']['deep'] = 10", "part = CONF['k']\npart['deep'] = 10"])
def test_a_part_that_has_a_global_of_its_own_changes_with_the_whole(
    changes_of: tp.Callable[..., dict[str, Change]], below: str
) -> None:
    before = "CONF = {'k': {'deep': 1}}\nPART = CONF['k']\ndef train(cfg): return PART\nif __name__ == '__main__':\n"
    assert changes_of(below, before)["PART"].value == {"deep": 10}


def test_a_deleted_global_is_seen(changes_of: tp.Callable[..., dict[str, Change]]) -> None:
    assert changes_of("del SCALE")["SCALE"].is_deleted


UNCHANGED = {
    "a call": "train({})",
    "another function's": "OTHER = 10",
    "a read": "print(SCALE, CONF, CONF['k'], ITEMS[0]['x'], Holder.x, HOLDER.y, len(ITEMS))",
    "a local name": "def f():\n    SCALE = 10\n    CONF = {}\n    CONF['k'] = SCALE\nf()",
    "a parameter": "def f(SCALE, ITEMS):\n    ITEMS.append(SCALE)\nf(10, [])",
    "a library": "os.environ['X'] = '1'\nlogging.root.name = 'root'\nrandom.seed(3)\nPath.other = 1\ndel Path.other",
    "numbers of a container": "k = ITEMS[0]['x'] + 1\nprint(f'{CONF}', len(ITEMS) == k)",
    "numbers with another name": "copied = NUMBERS['lr']\nfor each in NUMBERS.values(): print(each)",
    "what a library makes something of": "import json\ntext = json.dumps(CONF)",
    "a method of a library's object": "PARSER.parse_args([])\nprint(PARSER)\nlogging.info(PARSER)",
    "a key": "f = dict(SCALE=10)",
    "an attribute": "class A: ...\nA.SCALE = 10",
}


@pytest.mark.parametrize("below", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_what_changes_nothing_that_is_read_is_no_change(
    changes_of: tp.Callable[..., dict[str, Change]], below: str
) -> None:
    assert changes_of(below) == {}


READING = {
    "in a lambda": "f = lambda: SCALE\ndef train(cfg): return f()",
    "in a default": "def train(cfg, f=lambda: SCALE): return f()",
    "in a decorator": (
        "import functools\ndef around(f):\n    @functools.wraps(f)\n    def g(cfg): return SCALE\n    return g\n"
        "@around\ndef train(cfg): ..."
    ),
    "in a class": "class A:\n    def f(self): return SCALE\ndef train(cfg): return A().f()",
    "in a parent": "class B:\n    def f(self): return SCALE\nclass A(B): ...\ndef train(cfg): return A().f()",
    "in a registry": "FS = {}\ndef f(): return SCALE\nFS['f'] = f\ndef train(cfg): return FS['f']()",
    "by a decorator": (
        "FS = []\ndef register(f):\n    FS.append(f)\n@register\ndef f(): return SCALE\ndef train(cfg): return FS[0]()"
    ),
    "in an object": "class A:\n    def f(self): return SCALE\na = A()\ndef train(cfg): return a.f()",
    "in a nested function": "def train(cfg):\n    def f(): return SCALE\n    return f()",
    "in a library's object": (
        "import numpy as np\ndef f(x): return SCALE\nv = np.vectorize(f)\ndef train(cfg): return v(1)"
    ),
    "in one in a container": (
        "import numpy as np\nFS = {}\ndef f(x): return SCALE\nFS['v'] = np.vectorize(f)\n"
        "def train(cfg): return FS['v'](1)"
    ),
    "by hydra": (
        "from hydra.utils import instantiate\nclass A:\n    def f(self): return SCALE\n"
        "def train(cfg): return instantiate(cfg).f()"
    ),
    "by a text": "def train(cfg): return globals()['SCALE']",
    "by code in a text": "def train(cfg): return eval(f'{cfg} * SCALE')",
    "by the name of the script": "import sys\ndef train(cfg): return sys.modules[__name__].SCALE",
    "by importing the script": "def train(cfg):\n    import __main__\n    return __main__.SCALE",
    "from the script": "def train(cfg):\n    from __main__ import SCALE\n    return SCALE",
    "by an imported decorator": "from atexit import register\n@register\ndef f(): return SCALE\ndef train(cfg): ...",
    "by a call at loading": "import atexit\ndef f(): return SCALE\natexit.register(f)\ndef train(cfg): ...",
    "by an imported parent": (
        "import abc\nclass A(abc.ABC):\n    def f(self): return SCALE\n"
        "def train(cfg): return abc.ABC.__subclasses__()[-1]().f()"
    ),
    "of a partial": "import functools\ndef f(x, cfg): return SCALE\ntrain = functools.partial(f, 1)",
    "of a method": "class A:\n    def f(self, cfg): return SCALE\ntrain = A().f",
    "of an object that the program has made": "class A:\n    def f(self): return SCALE\ndef train(cfg): return a.f()",
    "of a callable object": "class A:\n    def __call__(self, cfg): return SCALE\ntrain = A()",
}


@pytest.mark.parametrize("text", READING.values(), ids=READING.keys())
def test_whatever_the_task_function_leads_to_reads(changes_of: tp.Callable[..., dict[str, Change]], text: str) -> None:
    before = f"SCALE = 1\n{text}\nif __name__ == '__main__':\n"
    below = "SCALE = 10\na = A()" if " a.f()" in text and "a = A()" not in text else "SCALE = 10"
    assert "SCALE" in changes_of(below, before)


ATTRIBUTES = {
    "raise a KeyError": "class A(dict):\n    __getattr__ = dict.__getitem__\n",
    "raise another error": "class A:\n    def __getattr__(self, name): raise RuntimeError(name)\n",
    "raise without a __dict__": "class A:\n    __slots__ = ()\n    def __getattr__(self, name): return 1 / 0\n",
    "are all there": "class A:\n    def __getattr__(self, name): return A()\n    def __call__(self): ...\n",
}


@pytest.mark.parametrize("text", ATTRIBUTES.values(), ids=ATTRIBUTES.keys())
def test_an_object_is_not_asked_for_attributes_that_it_makes_up(
    changes_of: tp.Callable[..., dict[str, Change]], text: str
) -> None:
    before = f"{text}a = A()\ndef train(cfg): return a, SCALE\nif __name__ == '__main__':\n"
    assert changes_of("SCALE = 10\nprint(type(a))\nb = [a]\nb.append(SCALE)", before)["SCALE"].value == 10


NO_VALUES = {
    "a module": "import json as SCALE",
    "a function": "def SCALE(): ...",
    "a class": "class SCALE: ...",
    "a function of a library": "from json import dumps as SCALE",
    "a lambda": "SCALE = lambda: 3",
    "a logger": "SCALE = logging.getLogger('a')",
    "a builtin": "SCALE = len",
}


@pytest.mark.parametrize("below", NO_VALUES.values(), ids=NO_VALUES.keys())
def test_what_is_no_value_is_given_to_jobs_and_does_not_count(
    changes_of: tp.Callable[..., dict[str, Change]], below: str
) -> None:
    assert [(name, change.has_value()) for name, change in changes_of(below).items()] == [("SCALE", False)]


VALUES = {
    "a partial": "import functools\nSCALE = functools.partial(print, 3)",
    "a bound method": "SCALE = HOLDER.change",
    "a function with captured variables": "def f(x):\n    return lambda: x\nSCALE = f(3)",
    "None": "SCALE = None",
}


@pytest.mark.parametrize("below", VALUES.values(), ids=VALUES.keys())
def test_a_function_that_carries_values_counts(changes_of: tp.Callable[..., dict[str, Change]], below: str) -> None:
    assert changes_of(below)["SCALE"].has_value()


IN_MODULES = {
    "an attribute": ("import settings\n", "settings.SCALE = 10", "settings.SCALE"),
    "under another name": ("import settings as s\n", "s.SCALE = 10", "s.SCALE"),
    "a container": ("from settings import CONF\n", 'CONF["k"] = 10', "CONF"),
    "a class": ("from settings import Kind as K\n", "K.x = 10", "K.x"),
}
PLACES = {"settings.SCALE": ("SCALE",), "s.SCALE": ("SCALE",), "CONF": ("CONF",), "K.x": ("Kind", "x")}


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize(("imports", "below", "name"), IN_MODULES.values(), ids=IN_MODULES.keys())
def test_what_the_program_changes_in_modules_of_the_project_is_found_there(
    changes_of: tp.Callable[..., dict[str, Change]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    imports: str,
    below: str,
    name: str,
    is_guarded: bool,
) -> None:
    (tmp_path / "settings.py").write_text("SCALE = 1\nCONF = {}\nclass Kind:\n    x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "settings", raising=False)
    guard = "if __name__ == '__main__':\n" if is_guarded else "def start(): ...\nstart()\nif True:\n"
    changes = changes_of(below, f"{imports}OWN = 1\ndef train(cfg): return {'OWN' if not is_guarded else 1}\n{guard}")
    assert [(found, *change.place) for found, change in changes.items()] == [
        (name, sys.modules["settings"], PLACES[name])
    ]
    monkeypatch.delitem(sys.modules, "settings")


def test_a_word_of_a_sentence_is_no_name_that_instantiate_finds(
    changes_of: tp.Callable[..., dict[str, Change]],
) -> None:
    """Or the time at which the program has started makes each launch another task."""
    before = (
        "from hydra.utils import instantiate\ndef train(cfg):\n    'Start the SCALE.'\n    print('SCALE is', cfg)\n"
        "    return instantiate(cfg)\nif __name__ == '__main__':\n"
    )
    assert changes_of("SCALE = 10", before) == {}


def test_what_a_read_value_was_made_of_does_not_count(changes_of: tp.Callable[..., dict[str, Change]]) -> None:
    assert list(changes_of("OTHER = 5\nSCALE = 2 * OTHER")) == ["SCALE"]


def test_what_only_the_program_reads_is_not_read(changes_of: tp.Callable[..., dict[str, Change]]) -> None:
    before = (
        "from hydra.utils import instantiate\nSCALE = OTHER = 1\ndef report():\n    print(OTHER)\n"
        "def main():\n    global OTHER, SCALE\n    SCALE = OTHER = 10\n    report()\n"
        "def train(cfg): return instantiate(cfg) * SCALE\nif __name__ == '__main__':\n"
    )
    assert list(changes_of("main()", before)) == ["SCALE"]
