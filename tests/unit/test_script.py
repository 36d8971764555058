"""The user's script: when a job may load it, what its names are called, and how they travel."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import traceback
import typing as tp
from collections.abc import Callable
from pathlib import Path

import pytest

from hydra_exca import script
from hydra_exca.store import pickles

GUARD = '\nif __name__ == "__main__":\n    main()\n'
ASK = """
import json, sys
from hydra_exca import script
found = script.running_script()
print(json.dumps({"path": found and found.path, "module": found and found.module}))
"""


def run(*command: str, cwd: Path) -> tp.Any:
    """What a process printed last, read as JSON."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# -- which scripts a job may load


@pytest.mark.app
def test_a_script_is_known_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, "train.py", f"def main():{ASK.replace(chr(10), chr(10) + '    ')}\n{GUARD}")
    assert run("train.py", cwd=tmp_path) == {"path": str(path), "module": None}


@pytest.mark.app
def test_a_module_that_was_started_with_m_is_known_by_its_name_too(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "")
    path = write(tmp_path, "pkg/train.py", f"def main():{ASK.replace(chr(10), chr(10) + '    ')}\n{GUARD}")
    assert run("-m", "pkg.train", cwd=tmp_path) == {"path": str(path), "module": "pkg.train"}


@pytest.mark.app
def test_there_is_no_script_in_a_console(tmp_path: Path) -> None:
    assert run("-c", ASK, cwd=tmp_path) == {"path": None, "module": None}


@pytest.mark.app
def test_a_package_that_was_started_with_m_is_no_script(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "")
    write(tmp_path, "pkg/__main__.py", f"def main():{ASK.replace(chr(10), chr(10) + '    ')}\n{GUARD}")
    assert run("-m", "pkg", cwd=tmp_path) == {"path": None, "module": None}


STARTS = {
    "a call": "main()",
    "an exit": "sys.exit(main())",
    "a raised exit": "raise SystemExit(main())",
    "an assignment": "result = main()",
    "an if": "if True:\n    main()",
    "a with": "with open('/dev/null'):\n    main()",
    "a try": "try:\n    main()\nfinally:\n    pass",
    "a decorator's call": "wrap()(main)()",
}


@pytest.mark.app
@pytest.mark.parametrize("statement", STARTS.values(), ids=STARTS.keys())
def test_a_script_that_would_start_its_program_again_is_not_loaded(tmp_path: Path, statement: str) -> None:
    """A job that loaded it would launch the whole sweep once more, and wait for itself."""
    prefix = f"import sys\ndef wrap():\n    return lambda f: f\ndef main():{ASK.replace(chr(10), chr(10) + '    ')}\n"
    write(tmp_path, "train.py", f"{prefix}{statement}\n")
    done = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1])["path"] is None


@pytest.mark.app
@pytest.mark.parametrize(("guarded", "loadable"), [(True, True), (False, False)])
def test_a_script_that_runs_what_it_imports_outside_of_a_guard_is_not_loaded(
    tmp_path: Path, guarded: bool, loadable: bool
) -> None:
    """What it calls there launches; a job that loaded the script would launch it again, and wait for itself."""
    write(tmp_path, "work.py", f"def ask():{ASK.replace(chr(10), chr(10) + '    ')}\n")
    guard = 'if __name__ == "__main__":\n    ' if guarded else ""
    write(tmp_path, "train.py", f"import work\n{guard}work.ask()\n")
    found = run("train.py", cwd=tmp_path)["path"]
    assert (found is not None) is loadable


HARMLESS = {
    "a guard": GUARD,
    "a guard written the other way round": 'if "__main__" == __name__:\n    main()\n',
    "a guard and more": 'import sys\nif __name__ == "__main__" and len(sys.argv) > 0:\n    main()\n',
    "calls of modules": f"import logging\nlogging.getLogger('x').setLevel(10)\n{GUARD}",
}


@pytest.mark.app
@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_guarded_script_can_be_loaded(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "train.py", f"def main():{ASK.replace(chr(10), chr(10) + '    ')}\n{text}")
    assert run("train.py", cwd=tmp_path)["path"] == str(path)


@pytest.mark.app
def test_loading_gives_the_names_without_starting_the_program(tmp_path: Path) -> None:
    path = write(tmp_path, "train.py", "class Model: ...\ndef main():\n    raise SystemExit('started')\n" + GUARD)
    assert load(path, "[main.Model.__module__, main.Model.__qualname__]") == ["__main__", "Model"]


def load(path: Path, expression: str, module: str | None = None) -> tp.Any:
    """The value of an expression in a process that has loaded the script as ``main``."""
    code = (
        "import json, sys\nfrom hydra_exca import script\n"
        f"script.load_script(script.Script({str(path)!r}, {module!r}))\n"
        f"main = sys.modules['__main__']\nprint(json.dumps({expression}))"
    )
    return run("-c", code, cwd=path.parent if module is None else path.parents[module.count(".")])


GUARDS = {
    "equal": 'if __name__ == "__main__":\n    started = True\n',
    "the other way round": 'if "__main__" == __name__:\n    started = True\n',
    "not equal": 'if __name__ != "__main__":\n    pass\nelse:\n    started = True\n',
    "in a tuple": 'if __name__ in ("__main__", "__other__"):\n    started = True\n',
    "with more": 'if __name__ == "__main__" and True:\n    started = True\n',
    "in a condition": 'started = True if __name__ == "__main__" else False\n',
    "in words": 'if __name__.endswith("main__"):\n    started = True\n',
    "in a loop": 'for _ in [0]:\n    started = __name__ == "__main__"\n',
}


@pytest.mark.app
@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS.keys())
def test_a_guard_is_answered_as_in_an_import(tmp_path: Path, guard: str) -> None:
    assert load(write(tmp_path, "train.py", f"started = False\n{guard}"), "main.started") is False


@pytest.mark.app
def test_everything_but_the_guard_sees_main(tmp_path: Path) -> None:
    """As without us: loggers, classes, and functions that ask when they are called."""
    text = (
        "import logging, sys\nname, log = __name__, logging.getLogger(__name__)\n"
        "def asks():\n    return __name__ == '__main__'\n"
        "here = sys.modules['__main__'].__dict__ is globals()\n"
        "own = [__spec__, __package__, __file__ == sys.modules['__main__'].__file__]\n"
    )
    seen = load(write(tmp_path, "train.py", text), "[main.name, main.log.name, main.asks(), main.here, main.own]")
    assert seen == ["__main__", "__main__", True, True, [None, None, True]]


@pytest.mark.app
def test_a_module_keeps_its_package(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "")
    write(tmp_path, "pkg/other.py", "value = 3\n")
    path = write(tmp_path, "pkg/train.py", "from .other import value\nname = __spec__.name, __package__\n")
    assert load(path, "[main.value, main.name]", module="pkg.train") == [3, ["pkg.train", "pkg"]]


@pytest.mark.app
def test_a_class_finds_its_module_while_it_is_made(tmp_path: Path) -> None:
    """dataclasses looks for the names that a text annotation means there."""
    text = (
        "from __future__ import annotations\nimport dataclasses\nfrom typing import ClassVar as Shared\n"
        "@dataclasses.dataclass\nclass Shape:\n    sides: int = 3\n    kind: Shared[str] = 'flat'\n"
        "fields = [field.name for field in dataclasses.fields(Shape)]\n"
    )
    assert load(write(tmp_path, "train.py", text), "main.fields") == ["sides"]


@pytest.mark.app
def test_what_only_the_program_binds_is_below_the_guard(tmp_path: Path) -> None:
    text = (
        "import json\nfrom hydra_exca import script\ndef above(): ...\nif __name__ == '__main__':\n"
        "    class Below: ...\n    def below():\n        def inner(): ...\n        return inner\n"
        "    function = lambda: 0\n    function.__qualname__ = 'function'\n"
        "    asked = [above, Below, below, below(), function]\n"
        "    print(json.dumps([script.is_below_guard(each) for each in asked]))\n"
    )
    write(tmp_path, "train.py", text)
    assert run("train.py", cwd=tmp_path) == [False, True, True, True, True]


STARTED = """
import json, sys
from hydra_exca import script
sys.argv = [sys.argv[0]]
print(json.dumps(script.original_arguments()))
"""
STARTS_OF_PYTHON = [
    ["train.py"],
    ["./train.py"],
    ["-u", "-W", "ignore", "train.py"],
    ["-OO", "-X", "utf8", "train.py"],
    ["-m", "pkg.train"],
    ["-mpkg.train"],
    ["-Bum", "pkg.train"],
    ["-m", "pkg"],
    ["pkg"],
    ["-c", STARTED],
    ["-Bc", STARTED],
    ["-m", "cProfile", "-o", "profile", "train.py"],
    ["-m", "cProfile", "-o", "profile", "-m", "pkg.train"],
    ["-m", "trace", "--count", "--missing", "-C", "counts", "train.py"],
]


@pytest.mark.app
@pytest.mark.parametrize("start", STARTS_OF_PYTHON, ids=lambda start: " ".join(start).partition(STARTED)[0])
def test_the_arguments_that_a_program_was_started_with_are_known(tmp_path: Path, start: list[str]) -> None:
    """However python was started, and whatever the program has made of them."""
    for name, text in {"pkg/__init__": "", "train": STARTED, "pkg/train": STARTED, "pkg/__main__": STARTED}.items():
        write(tmp_path, f"{name}.py", text)
    given = ["--offset", "10", "-m", "train.py=1"]
    command = [sys.executable, *start, *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert json.dumps(given) in done.stdout.splitlines(), done.stderr


# -- how things are called


@pytest.mark.app
@pytest.mark.parametrize(
    ("start", "name"),
    [
        (["train.py"], "train"),
        (["pkg/deep/train.py"], "pkg.deep.train"),
        (["-m", "pkg.deep.train"], "pkg.deep.train"),
    ],
)
def test_a_script_is_called_as_python_m_would(tmp_path: Path, start: list[str], name: str) -> None:
    text = "import json\nfrom hydra_exca import script\ndef main(): ...\nprint(json.dumps(script.module_name(main)))\n"
    for file in ("train.py", "pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/train.py"):
        write(tmp_path, file, "" if file.endswith("__init__.py") else text)
    assert run(*start, cwd=tmp_path) == name


@pytest.mark.app
def test_a_script_below_a_link_is_called_as_the_file_it_is(tmp_path: Path) -> None:
    text = "import json\nfrom hydra_exca import script\ndef main(): ...\nprint(json.dumps(script.module_name(main)))\n"
    write(tmp_path, "real/train.py", text)
    os.symlink(tmp_path / "real/train.py", tmp_path / "other.py")
    assert run("other.py", cwd=tmp_path) == "train"


@pytest.mark.app
def test_what_is_typed_in_a_console_is_interactive(tmp_path: Path) -> None:
    code = "import json\nfrom hydra_exca import script\ndef f(): ...\nprint(json.dumps(script.module_name(f)))"
    assert run("-c", code, cwd=tmp_path) == "interactive"


# -- how they travel


def decorate(function: tp.Any) -> tp.Any:
    def wrapper() -> None: ...

    wrapper.__wrapped__ = function  # type: ignore[attr-defined]
    return wrapper


@decorate
def decorated() -> None: ...


def plain() -> None: ...


class Plain:
    class Inner: ...


@pytest.mark.parametrize("thing", [plain, Plain, Plain.Inner, json.dumps, pickle.Pickler])
def test_what_pickle_finds_by_itself_needs_no_reference(thing: tp.Any) -> None:
    assert script.attribute_reference(thing) is None


def test_a_function_below_its_decorators_is_found_again() -> None:
    reference = script.attribute_reference(decorated.__wrapped__)
    assert reference is not None and script.attribute(*reference) is decorated.__wrapped__


def test_a_local_function_has_no_reference() -> None:
    def local() -> None: ...

    assert script.attribute_reference(local) is None


def test_another_function_under_a_known_name_has_no_reference() -> None:
    def impostor() -> None: ...

    impostor.__qualname__ = "plain"
    assert script.attribute_reference(impostor) is None


@pytest.mark.app
def test_a_class_of_the_script_is_the_same_one_in_the_next_run(tmp_path: Path) -> None:
    """Pickled by value it would be another class each time, and no two results would be equal."""
    text = """
import json, sys, pickle
from pathlib import Path
from hydra_exca.store import pickles
class Model:
    def __eq__(self, other):
        return type(self) is type(other)
def main():
    stored = Path("stored")
    if not stored.exists():
        stored.write_bytes(pickles.pickle_value(Model(), "it"))
    print(json.dumps([pickle.loads(stored.read_bytes()) == Model(), len(stored.read_bytes()) < 200]))
"""
    write(tmp_path, "train.py", text + GUARD)
    assert [run("train.py", cwd=tmp_path) for _ in range(2)] == [[True, True]] * 2


def test_stored_pickles_name_our_functions_as_they_always_did() -> None:
    """Results that are stored already would be lost otherwise."""
    assert (pickles._code.__module__, pickles._code.__qualname__) == ("hydra_exca.store.pickles", "_code")
    assert (pickles._load_storage.__module__, pickles._load_storage.__qualname__) == (
        "hydra_exca.store.pickles",
        "_load_storage",
    )
    assert (script.attribute.__module__, script.attribute.__qualname__) == ("hydra_exca.script", "attribute")


def test_code_that_is_pickled_by_value_keeps_the_name_of_its_file_and_its_lines() -> None:
    def outer() -> Callable[[], None]:
        def inner() -> None:
            raise ValueError

        return inner

    inner = pickle.loads(pickles.pickle_value(outer, "the function"))()
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - it has no message
        inner()
    last = traceback.extract_tb(raised.tb)[-1]
    assert (last.filename, last.line) == (__file__, "raise ValueError")
