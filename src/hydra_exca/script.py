"""The user's script: how jobs load it, and how its classes and functions are named.

In a job the script is ``__main__``, as without us: its code runs in the module of that name, and only comparisons of
``__name__`` at its top level are answered as in an import, so that the program does not start again. A function of it
travels as a name, and its classes are those of the next run. What is defined below the guard travels by value into the
same module, and so does a script that would start its program on being loaded, for want of a guard.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import threading
import types
import typing as tp
from pathlib import Path

_MAIN = ("__main__", "__mp_main__")  # the second in processes of multiprocessing


@dataclasses.dataclass(frozen=True)
class Script:
    """The file of a script, and its module name if it was started by ``python -m``."""

    path: str
    module: str | None = None


@dataclasses.dataclass
class _ScriptState:
    """What this process knows as a job: what its launch calls ``__main__``, and whether that script is loaded here."""

    main_name: str | None = None
    notebook: str | None = None
    is_loading: bool = False
    has_script: bool = False


_state = _ScriptState()


def running_script() -> Script | None:
    """The script that runs, None where there is none that a job could load (a notebook, a console)."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or not os.path.isfile(path):
        return None
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None and name.endswith("__main__"):  # python -m <a package>: a program, not a script
        return None
    path = os.path.abspath(path)
    return Script(path, name) if _can_be_loaded(path) and not _is_at_top_level(path) else None


def is_interactive() -> bool:
    """Whether somebody types what this process runs: in a notebook or a console, an error does not end it."""
    return hasattr(sys, "ps1")


def is_typed() -> bool:
    """Whether the code of ``__main__`` was typed into a notebook or console, here or in the launch of this job."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path is None or not _is_file(path)


@functools.lru_cache
def _is_file(path: str) -> bool:
    return os.path.isfile(path)


def notebook_path() -> str | None:
    """The file of the notebook that runs here or in the launch of this job; None if there is none, or it is not known.

    VS Code gives it to the kernel in a variable, Jupyter in one of the environment.
    """
    if _state.notebook is not None or not _is_kernel():
        return _state.notebook
    path = main_names().get("__vsc_ipynb_file__") or _session_name()
    return path if isinstance(path, str) and path.endswith(_NOTEBOOK) and os.path.isabs(path) else None


def is_unnamed_notebook() -> bool:
    """Whether a notebook runs here whose file is not known."""
    return _is_kernel() and notebook_path() is None


_NOTEBOOK = ".ipynb"


def _is_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@functools.cache  # once the kernel runs, its results belong to that name
def _session_name() -> str | None:
    """The notebook that Jupyter started this kernel for, unless the one above has handed its own name on.

    A notebook may run another one, which is started by a process that has the variable, too.
    """
    name = os.environ.get(_SESSION, "")
    starter = Path("/proc", os.environ.get("JPY_PARENT_PID", "-"), "environ")
    try:
        is_inherited = f"{_SESSION}={name}".encode() in starter.read_bytes().split(b"\0")
    except OSError:
        is_inherited = False
    return name if os.path.isfile(name) and not is_inherited else None


_SESSION = "JPY_SESSION_NAME"


def original_arguments() -> list[str] | None:
    """The arguments that this program was started with, whatever it has made of ``sys.argv``; None if unknown."""
    started = sys.orig_argv[1:]
    if sys.argv[:1] == ["-c"]:
        positions = [number + 1 for number, given in enumerate(started) if re.fullmatch(r"-\w*c", given)]
    else:  # the first is right under a profiler or debugger, too, the second if the program has changed it
        positions = [number for number, given in enumerate(started) if given in sys.argv[:1]]
        positions += [number for number, given in enumerate(started) if _names_program(given)]
    return started[positions[0] + 1 :] if positions else None


def _names_program(given: str) -> bool:
    """Whether this part of a command line names the file, the module or the folder that python runs."""
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", None)
    path = getattr(main, "__file__", None) or ""
    if module is not None and module != "__main__":
        named = re.sub(r"^-\w*m", "", given)  # -mpkg.train, or in two parts
        return named == str(module).removesuffix(".__main__")
    program = path if module is None else os.path.dirname(path)  # of a folder or archive
    return program != "" and os.path.basename(given) == os.path.basename(program)


def load_script(script: Script) -> None:
    """Makes the script ``__main__`` of this process, without starting its program."""
    spec = None if script.module is None else importlib.util.find_spec(script.module)
    if script.module is not None and (spec is None or spec.origin is None):
        raise ImportError(f"No module named {script.module!r}", name=script.module)
    path = script.path if spec is None else str(spec.origin)
    tree = _GuardsAnswered(script.module or Path(path).stem).visit(ast.parse(Path(path).read_bytes(), path))
    names = vars(_become_main(path, spec))
    _state.is_loading = _state.has_script = True
    try:
        exec(compile(tree, path, "exec", dont_inherit=True), names)
    finally:
        _state.is_loading = False


def become_unloaded_main(path: str | None) -> None:
    """Gives this process an empty ``__main__``, for what travels by value from one that cannot be loaded.

    Processes of multiprocessing would run its file, so the module names this process's own instead.
    """
    _become_main(path, getattr(sys.modules["__main__"], "__spec__", None))


def main_names() -> dict[str, tp.Any]:
    """The names of ``__main__``. What travels by value there says by this function where it belongs."""
    return vars(sys.modules["__main__"])


def _become_main(path: str | None, spec: importlib.machinery.ModuleSpec | None) -> types.ModuleType:
    """A new module ``__main__``, with the attributes that Python gives to that of a script or of ``python -m``."""
    module = types.ModuleType("__main__")
    loader = None if path is None else importlib.machinery.SourceFileLoader("__main__", path)
    package = None if spec is None else spec.parent
    own = {"__builtins__": builtins, "__cached__": None, "__loader__": loader, "__package__": package, "__spec__": spec}
    module.__dict__.update(own)
    if path is not None:
        module.__file__ = path
    sys.modules["__main__"] = module
    return module


class _GuardsAnswered(ast.NodeTransformer):
    """Replaces ``__name__`` in comparisons and guards at the top level of a script by the name of an import.

    Guards are not replaced themselves: some scripts say ``!=``.
    """

    def __init__(self, name: str) -> None:
        self._answer = _NameAnswered(name)

    def visit(self, node: ast.AST) -> tp.Any:
        if isinstance(node, (*_DEFINITIONS, ast.Lambda)):  # what is called later sees ``__main__``
            return node
        if isinstance(node, ast.Compare):
            return self._answer.visit(node)
        if isinstance(node, (ast.If, ast.IfExp)):
            node.test = self._answer.visit(node.test)
        return self.generic_visit(node)


class _NameAnswered(ast.NodeTransformer):
    def __init__(self, name: str) -> None:
        self._name = name

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(self._name), node) if node.id == "__name__" else node


def is_loading() -> bool:
    """Whether a job is loading the script now: launches that it starts then are not intended."""
    return _state.is_loading


def attribute(name: str, module: str, unwrapped: int = 0) -> tp.Any:
    """The attribute ``name`` of ``module``, without ``unwrapped`` of its decorators. Stored pickles name this function.

    The script is meant by its name as a module, whether it is what runs here or is imported.
    """
    # where a job has the script, it is what the launch calls so: its copy may be in another folder
    own_name = _state.main_name if _state.has_script else _main_name()
    found: tp.Any = sys.modules["__main__"] if module == own_name else importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    for _ in range(unwrapped):
        found = found.__wrapped__
    return found


def attribute_reference(obj: tp.Any) -> tuple[str, str, int] | None:
    """The arguments with which `attribute` gives this class or function in a job too, None if there are none.

    Functions below a decorator (that of hydra.main, say) are found through ``__wrapped__``. What a module other
    than the script defines under its own name needs none of this: pickle finds it.
    """
    in_script = obj.__module__ in _MAIN
    if in_script and not _can_be_found_again(obj):
        return None
    module = module_name(obj)
    depth = _depth(obj, module)
    return None if depth is None or (depth == 0 and not in_script) else (obj.__qualname__, module, depth)


def _can_be_found_again(obj: tp.Any) -> bool:
    """Whether a job has the script of a class or function, or can load it."""
    if _state.main_name is not None and not _state.has_script:
        return False  # it came here by value, and looking for it would run the script
    return obj.__module__ != "__main__" or running_script() is not None


def _depth(obj: tp.Any, module: str) -> int | None:
    """How many decorators are above a class or function where its module names it; None if it is not there."""
    try:
        found = attribute(obj.__qualname__, module)
    except (AttributeError, ImportError, TypeError, ValueError):
        return None
    depth = 0
    while found is not obj:
        if not hasattr(found, "__wrapped__") or isinstance(obj, type):
            return None
        found, depth = found.__wrapped__, depth + 1
    return depth


def is_below_guard(obj: tp.Any) -> bool:
    """Whether the script defines a class or function where only the program itself gets to: no job loads it."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None or obj.__module__ not in _MAIN:
        return False
    return obj.__qualname__.partition(".")[0] in _names_below_guards(os.path.abspath(path))


def module_name(obj: tp.Any) -> str:
    """The module of a class or function as ``python -m`` would spell it, never ``__main__``.

    ``pkg/train.py`` is ``pkg.train`` where ``pkg`` is a package, whichever way it was started.
    """
    name = module_in_each_python(obj)
    if name not in _MAIN:
        return name
    path = _file_of(obj)
    if path is None or path == getattr(sys.modules.get("__main__"), "__file__", None):
        return main_name()
    return _dotted(os.path.abspath(path))  # under a profiler, say


def module_in_each_python(obj: tp.Any) -> str:
    """The module of a class or function, by the name that Python 3.11 has for it."""
    return _MOVED.get(obj.__module__, str(obj.__module__))


# where some versions of Python define what others define in the module that exports it
_MOVED = {"pathlib._local": "pathlib", "zipfile._path": "zipfile"}


def module_of(cls: type) -> str:
    """The module that a class was defined in, by the name that ``__main__`` has at present; takes no look at files."""
    return main_name() if cls.__module__ in _MAIN else cls.__module__


def set_main_name(name: str | None, notebook: str | None = None) -> None:
    """Makes this process, a job, call what its launch defined in ``__main__`` as the launch does."""
    _state.main_name, _state.notebook = name, notebook


def main_name() -> str:
    """What ``__main__`` is called: here, or in the launch that this job belongs to."""
    return _state.main_name or _main_name()


def _main_name() -> str:
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or not _is_file(path):
        notebook = notebook_path()
        return "interactive" if notebook is None else f"{_dotted(notebook)}{_NOTEBOOK}"
    spec = getattr(getattr(main, "__spec__", None), "name", None)
    return _dotted(os.path.abspath(path)) if spec is None or spec.endswith("__main__") else str(spec)


def _file_of(obj: tp.Any) -> str | None:
    try:
        path = inspect.getfile(obj)
    except (TypeError, OSError):
        return None
    return path if os.path.isfile(path) else None


@functools.lru_cache
def _dotted(file: str) -> str:
    """The name under which a file can be imported: it is part of each uid of a class in it."""
    path = Path(file).resolve()
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


@functools.cache
def _can_be_loaded(path: str) -> bool:
    """Whether loading a script starts nothing: it has a guard at the top level, or calls nothing of its own there."""
    nodes = statements(path)
    if nodes is None:
        return False
    own = {name for node in nodes for name in _defined_names(node)}
    calls_own = any(_calls(node, own) for node in nodes if not isinstance(node, _DEFINITIONS))
    return any(map(_is_guard, nodes)) or not calls_own


@functools.cache
def statements(path: str) -> list[ast.stmt] | None:
    """The top level of a script, None if it cannot be read."""
    try:
        return ast.parse(Path(path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None


def _is_at_top_level(path: str) -> bool:
    """Whether the main thread runs the script's top level, outside of a guard: loading it would run this again."""
    line = current_line(main_names())
    if line is None:
        return False
    here = [node for node in statements(path) or () if node.lineno <= line <= (node.end_lineno or line)]
    return not any(map(_is_guard, here))


def current_line(names: tp.Mapping[str, tp.Any]) -> int | None:
    """The line of the script's top level that the main thread runs; None if it runs no script with these globals."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001  documented, and public
    while frame is not None and (frame.f_code.co_name != "<module>" or frame.f_globals is not names):
        frame = frame.f_back
    return None if frame is None else frame.f_lineno


def _is_guard(node: ast.AST) -> bool:
    """Whether a statement is an ``if`` that tests ``__name__``."""
    tested = ast.walk(node.test) if isinstance(node, ast.If) else ()
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in tested)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@functools.cache
def _names_below_guards(path: str) -> frozenset[str]:
    """The functions, classes and variables that guarded statements bind."""
    guards = [node for node in _outside_functions(statements(path) or ()) if _is_guard(node)]
    guarded = list(_outside_functions(child for guard in guards for child in ast.iter_child_nodes(guard)))
    defined = (node.name for node in guarded if isinstance(node, _DEFINITIONS))
    bound = (node.id for node in guarded if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return frozenset((*defined, *bound))


def _outside_functions(nodes: tp.Iterable[ast.AST]) -> tp.Iterator[ast.AST]:
    """These nodes and all in them, without what is in functions and classes."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            pending += ast.iter_child_nodes(node)


def _defined_names(node: ast.stmt) -> tp.Iterator[str]:
    """The functions, classes and variables that a statement defines: one of them may be the program."""
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _calls(node: ast.stmt, own: set[str]) -> bool:
    """Whether a statement calls something of the script's own, or what another call returned."""
    calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
    return any(isinstance(func, ast.Call) or (isinstance(func, ast.Name) and func.id in own) for func in calls)
