"""What a script has changed below its guard, and what its task function reads of that: jobs would not know it.

Found in the script's text: what the statements below the guard and the functions that they call bind, delete or store
into. Values are those at the launch.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import collections
import collections.abc
import contextlib
import dataclasses
import dis
import functools
import importlib.util
import inspect
import itertools
import logging
import re
import sys
import types
import typing as tp

from hydra_exca import script
from hydra_exca.errors import ConfigError

from . import canonical, carried, reached
from .scalars import SCALARS

_Names: tp.TypeAlias = tp.Mapping[str, tp.Any]
_Path: tp.TypeAlias = tuple[str, ...]  # a global of the script, and attributes


@dataclasses.dataclass(frozen=True)
class Change:
    """A global of the script, or an attribute of one, that is not what loading the script would make it.

    ``place`` is where it is found: a module that the script imports, None for the script itself, and a path from there.
    """

    path: _Path  # that of another module begins with its name
    value: tp.Any
    is_deleted: bool
    place: tuple[types.ModuleType | None, _Path]

    @property
    def name(self) -> str:
        """How an option names it."""
        return ".".join(self.path)

    def has_value(self) -> bool:
        """Whether it counts: no modules, classes, loggers, nor functions that carry nothing."""
        value = self.value
        if isinstance(value, (type, types.ModuleType, logging.Logger, logging.LoggerAdapter)):
            return False
        if inspect.isfunction(value):
            return value.__closure__ is not None
        return not carried.is_routine(value) or inspect.ismethod(value)


def read_changes(function: tp.Any, convert: tp.Callable[[tp.Any], tp.Any] = lambda value: value) -> list[Change]:
    """What the program has changed until now and ``function``, or what it calls in the script, reads.

    ``convert`` gives plain values in place of those that have no canonical form, and other values as they are. If
    the function is in another module, and a function of that module has launched, the same of that module.
    """
    target = carried.target_of(function)
    readers = []
    main = sys.modules.get("__main__")
    names = _program_names(target)
    nodes = _nodes_of(names)
    if nodes:
        is_loaded = names is not script.main_names() or script.running_script() is not None
        statements = list(_flat(nodes, script.current_line(names), is_program=not is_loaded))
        readers.append(_ScriptReader(None, names, statements, function, is_loaded, convert))
    module = sys.modules.get(str(getattr(target, "__module__", None)))
    launching = [] if module is None or module is main else _running_functions(module)
    if module is not None and launching and carried.is_users_module(module.__name__):
        statements = [each for each in _flat(_nodes_of(vars(module)), None) if not each.is_program]
        calls = ast.parse("\n".join(f"{name}()" for name in launching)).body
        statements += [_Statement(call, is_program=True) for call in calls]
        readers.append(_ScriptReader(module, vars(module), statements, function, True, convert))
    return sorted((change for reader in readers for change in reader.changes()), key=lambda change: change.path)


def _program_names(target: tp.Any) -> dict[str, tp.Any]:
    """The globals of the script, which a profiler runs beside its own ``__main__``."""
    names: dict[str, tp.Any] = target.__globals__ if inspect.isfunction(target) else {}
    return names if names.get("__name__") == "__main__" and "__file__" in names else script.main_names()


def _nodes_of(names: _Names) -> list[ast.stmt]:
    path = names.get("__file__")
    return [] if path is None else script.statements(path) or []


def _running_functions(module: types.ModuleType) -> list[str]:
    """The functions and classes of a module whose code this thread runs now."""
    names, frame = dict[str, None](), inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_qualname.partition(".")[0]
        if frame.f_globals is vars(module) and name.isidentifier():
            names[name] = None
        frame = frame.f_back
    return list(names)


# -- statements --------------------------------------------------------------------------------------------------------

_BINDING_GLOBAL = ("STORE_GLOBAL", "DELETE_GLOBAL")
_BINDING = (*_BINDING_GLOBAL, "STORE_NAME", "DELETE_NAME")
_MENTIONING = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_NAME", "IMPORT_FROM")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _CodeNames(tp.NamedTuple):
    """The globals that compiled code reads and binds, and those that functions in it bind.

    ``mentions`` are the globals, attributes and modules that it reads, ``texts`` are those in it.
    """

    reads: set[str]
    binds: set[str]
    binds_inside: set[str]
    mentions: set[str]
    texts: set[str]


def _names_in(outermost: types.CodeType) -> _CodeNames:
    codes = list(carried.nested_codes(outermost))
    steps = [(code, step.opname, step.argval) for code in codes for step in dis.get_instructions(code)]
    reads = set(reached.global_names(outermost))
    return _CodeNames(
        reads,
        binds={name for code, verb, name in steps if code is outermost and verb in _BINDING},
        binds_inside={name for code, verb, name in steps if code is not outermost and verb in _BINDING_GLOBAL},
        mentions=reads.union(name for _, verb, name in steps if verb in _MENTIONING),
        texts={each for code in codes for each in code.co_consts if isinstance(each, str)},
    )


class _Statement:
    """A statement of the top level, without those inside it. If it ``is_program``, no job runs it."""

    def __init__(self, node: ast.stmt, is_program: bool) -> None:
        self.node = node
        self.is_program = is_program
        self.defined = node.name if isinstance(node, _DEFINITIONS) else None

    @functools.cached_property
    def names(self) -> _CodeNames:
        is_future = isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__"
        loop = ast.While(ast.Constant(True), [ast.Pass() if is_future else self.node], [])  # a break may stand in it
        module = ast.fix_missing_locations(ast.Module([loop], []))
        return _names_in(compile(module, "", "exec", dont_inherit=True))

    def called_parts(self, attributes: tp.Container[str]) -> list[_Statement]:
        """The function; of a class, the methods that may be called if these ``attributes`` are read."""
        if not isinstance(self.node, ast.ClassDef):
            return [self]
        names = [(getattr(part, "name", ""), part) for part in self.node.body]
        called = [part for name, part in names if name in attributes or name.startswith("__")]
        fields = {**dict(ast.iter_fields(self.node)), "bases": [], "keywords": [], "decorator_list": []}
        return [_Statement(ast.ClassDef(**{**fields, "body": [part]}), is_program=False) for part in called]

    def uses(self) -> tp.Iterator[_Use]:
        """What is done with globals in it. In a class, ``cls`` is that class."""
        for use in _uses(self.node):
            root, *attributes = use.path
            if root == "cls" and isinstance(self.node, ast.ClassDef):
                yield use._replace(path=(self.node.name, *attributes))
            elif root in self.names.reads:
                yield use

    @property
    def is_handed_over(self) -> bool:
        """Whether loading may give it to other modules, which may call it: by decorators and the classes above it."""
        node = self.node
        return any(getattr(node, name, None) for name in ("decorator_list", "bases", "keywords"))


def _flat(nodes: tp.Iterable[ast.stmt], line: int | None, is_program: bool = False) -> tp.Iterator[_Statement]:
    """All statements of the top level that have run, or may have run, when the program is at ``line``."""
    for node in nodes:
        if is_program and line is not None and node.lineno > line:
            continue
        if isinstance(node, _DEFINITIONS):
            yield _Statement(node, is_program)
            continue
        bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        bodies += [each.body for each in (*getattr(node, "handlers", ()), *getattr(node, "cases", ()))]
        header = _without_bodies(node)
        below = is_program or _asks_for_name(header)
        yield _Statement(header, below)
        is_loop = isinstance(node, (ast.For, ast.While)) and line is not None and line <= (node.end_lineno or line)
        for body in bodies:
            yield from _flat(body, None if is_loop else line, below)


def _without_bodies(node: ast.stmt) -> ast.stmt:
    """A compound statement's first line, which evaluates and binds; another statement as it is."""
    if isinstance(node, (ast.Try, getattr(ast, "TryStar", ast.Try))):
        return ast.copy_location(ast.Pass(), node)
    fields = dict(ast.iter_fields(node))
    if isinstance(fields.get("body"), list):
        fields |= {"body": [ast.Pass()], **({"orelse": []} if "orelse" in fields else {})}
    elif isinstance(fields.get("cases"), list):
        cases = [ast.match_case(each.pattern, each.guard, [ast.Pass()]) for each in fields["cases"]]
        fields |= {"cases": cases}
    else:
        return node
    return ast.copy_location(type(node)(**fields), node)


def _asks_for_name(node: ast.stmt) -> bool:
    """Whether a comparison or test in it has another result in a job than in the program."""
    tested = [part if isinstance(part, ast.Compare) else getattr(part, "test", None) for part in ast.walk(node)]
    parts = (part for each in tested if each is not None for part in ast.walk(each))
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in parts)


# -- what is done with globals -----------------------------------------------------------------------------------------

_CHANGING = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"),
    *("update", "setdefault", "popitem", "add", "discard", "__setitem__", "__delitem__", "__setattr__"),
    *("difference_update", "intersection_update", "symmetric_difference_update"),
    *("appendleft", "extendleft", "popleft", "rotate", "subtract", "move_to_end"),
}
# builtins that return no part of their arguments; what others return may be changed, and so the argument
_READING = {
    *("print", "len", "str", "repr", "int", "float", "bool", "sum", "any", "all", "hash", "id", "type", "format"),
    *("isinstance", "issubclass", "callable", "hasattr", "range", "abs", "round", "ascii"),
}
_CALLING = {"setattr", "delattr", "map", "filter"}  # may change their arguments
_LOOKING = (ast.Expr, ast.Compare, ast.BinOp, ast.UnaryOp, ast.FormattedValue, ast.If, ast.While, ast.Assert)


class _Use(tp.NamedTuple):
    """What is done with a global, or with the attribute of one to which ``path`` leads.

    ``how``: "stored" into it is certain; by "a method" of it; "given" to a call whose result is not used; "kept" where
    code may change it later. ``callee`` is the method, or what it is an argument of. ``is_part``: with a part of it.
    """

    path: _Path
    how: str
    is_part: bool = False
    callee: str = ""


def _uses(tree: ast.AST) -> tp.Iterator[_Use]:
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    for node in parents:
        if isinstance(node, ast.Name):
            yield from _Chain(node, parents).uses()


class _Chain:
    """A name, and the attributes, items, methods and builtins that lead from it to what its value is used for."""

    def __init__(self, name: ast.Name, parents: tp.Mapping[ast.AST, ast.AST]) -> None:
        self._path: _Path = (name.id,)
        self._is_part = False
        self._methods: list[str] = []
        self._name = self._node = tp.cast(ast.AST, name)
        while self._can_follow(parents.get(self._node)):
            self._node = parents[self._node]
        self._user = parents.get(self._node)
        self._is_unused = isinstance(parents.get(self._user) if self._user is not None else None, ast.Expr)

    def _can_follow(self, parent: ast.AST | None) -> bool:
        """Whether the value of ``parent`` is the same or a part of it."""
        node = self._node
        if isinstance(parent, ast.Attribute):
            self._path += () if self._is_part else (parent.attr,)
        elif isinstance(parent, ast.Call) and parent.func is node and isinstance(node, ast.Attribute):
            self._methods.append(node.attr)
            self._path = self._path if self._is_part else self._path[:-1]
            self._is_part = True
        elif (isinstance(parent, ast.Subscript) and parent.value is node) or _is_builtin_of_parts(parent):
            self._is_part = True
        else:
            return isinstance(parent, (ast.Starred, ast.keyword, ast.IfExp, ast.BoolOp))
        return True

    def uses(self) -> tp.Iterator[_Use]:
        node, user = self._node, self._user
        is_target = not isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
        if (is_target and node is not self._name) or not _CHANGING.isdisjoint(self._methods):
            yield self._use("stored")
        elif self._methods:
            yield self._use("a method", self._methods[0])
        if isinstance(user, ast.Call) and user.func is not node:
            yield from self._given(user)
        elif not is_target and not isinstance(user, (ast.Call, *_LOOKING)):
            yield self._use("kept")

    def _use(self, how: str, callee: str = "") -> _Use:
        return _Use(self._path, how, self._is_part, callee)

    def _given(self, call: ast.Call) -> tp.Iterator[_Use]:
        """What a call does with it as an argument."""
        func: ast.AST = call.func
        while isinstance(func, (ast.Attribute, ast.Subscript, ast.Call)):
            func = func.func if isinstance(func, ast.Call) else func.value
        callee = func.id if isinstance(func, ast.Name) else ""
        if callee in ("setattr", "delattr") and self._node is call.args[0]:
            name = call.args[1] if len(call.args) > 1 else None
            constant = (str(name.value),) if isinstance(name, ast.Constant) else ("*",)
            yield self._use("stored")._replace(path=self._path + constant)
        elif callee not in _READING:
            yield self._use("given" if self._is_unused else "kept", callee)


def _is_builtin_of_parts(node: ast.AST | None) -> bool:
    is_named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return is_named and node.func.id in vars(builtins).keys() - _READING - _CALLING  # type: ignore[union-attr]


# -- what has changed and is read --------------------------------------------------------------------------------------

# what finds functions by a text, in a configuration or in the code, and what finds variables by one
_BY_TEXT = {"globals", "eval", "exec", "instantiate", "call", "get_class", "get_method", "get_object", "modules"}
_VARIABLES_BY_TEXT = {"globals", "eval", "exec"}
_MOST_PARTS = 10_000  # of one object, that are objects themselves
_MUTABLE = (
    *(collections.abc.MutableMapping, collections.abc.MutableSequence, collections.abc.MutableSet),
    *(types.SimpleNamespace, argparse.Namespace),
)
_NO_OBJECTS = (type, types.ModuleType, types.FunctionType)


class _ScriptReader:
    """Reads what has changed in one module: the script, or the one that has launched."""

    def __init__(
        self,
        module: types.ModuleType | None,
        names: _Names,
        statements: list[_Statement],
        function: tp.Any,
        is_loaded: bool,
        convert: tp.Callable[[tp.Any], tp.Any],
    ) -> None:
        """``module`` is None for the script."""
        self._module = module
        self._names = names
        self._statements = statements
        self._function = function
        self._is_loaded_by_jobs = is_loaded
        self._convert = convert
        target = carried.target_of(function)
        name, _, inside = str(getattr(target, "__qualname__", "")).partition(".")
        is_here = getattr(target, "__module__", None) == names.get("__name__")
        self._own_name = name if is_here and "<" not in inside else ""
        self._below = [each for each in statements if each.is_program and each.defined != self._own_name]
        self._definitions: dict[str | None, list[_Statement]] = collections.defaultdict(list)
        for each in statements:
            self._definitions[each.defined].append(each)

    def changes(self) -> tp.Iterator[Change]:
        bound, stored = self._changed_paths()
        if not bound and not stored:
            return
        read, paths = self._read_names(), bound | stored
        for path in sorted(paths):
            place = self._place(path) if path in stored else (self._module, path)
            is_named = isinstance(self._names.get(path[0]), (type, types.ModuleType))  # and does not count as a whole
            is_within_another = any(path[:size] in paths for size in range(1 + is_named, len(path)))
            is_read = path[0] in read and self._is_loaded_by_jobs
            # functions of other modules may read what is theirs
            if not is_within_another and (is_read or place[0] is not self._module):
                yield from self._change(path, place)

    def _change(self, path: _Path, place: tuple[types.ModuleType | None, _Path]) -> tp.Iterator[Change]:
        if path[0] in self._names:
            with contextlib.suppress(Exception):  # there is no such attribute yet, or a property that raises
                value = functools.reduce(getattr, path[1:], self._names[path[0]])
                yield Change((*self._prefix(), *path), value, is_deleted=False, place=place)
        elif any(path[0] in each.names.binds for each in self._statements if not each.is_program):
            yield Change((*self._prefix(), *path), None, is_deleted=True, place=place)

    def _prefix(self) -> _Path:
        return () if self._module is None else (self._module.__name__.rpartition(".")[2],)

    def _place(self, path: _Path) -> tuple[types.ModuleType | None, _Path]:
        """Where something that belongs to a module of the project is found there."""
        module, name = self._imports.get(path[0], ("", None))
        owner = sys.modules.get(module)
        if owner is None:
            return self._module, path
        if name is None:  # import a.b as c, or import a.b
            value = self._names.get(path[0])
            return (value, path[1:]) if isinstance(value, types.ModuleType) else (self._module, path)
        return owner, (name, *path[1:])

    # what the program has changed

    def _changed_paths(self) -> tuple[set[_Path], set[_Path]]:
        """What the program binds or deletes, and what it stores into."""
        if not self._below:
            return set(), set()
        called = [each for each in self._statements if not each.is_program and each.defined in self._called]
        attributes = set().union(*(each.names.mentions for each in (*self._below, *called)))
        called = [part for each in called for part in each.called_parts(attributes)]
        names = set().union(*(each.names.binds for each in self._below))
        names.update(*(each.names.binds_inside for each in (*self._below, *called)))
        if any(map(_binds_unknown_names, (*self._below, *called))):
            names.update(self._names)
            names.difference_update(*(each.names.binds for each in self._statements if each.defined is not None))
        uses = [use for each in (*self._below, *called) for use in each.uses() if self._is_change(use)]
        stored = {path for use in uses for path in self._paths_of(use)}
        return {(name,) for name in names if not name.startswith("__")}, stored | self._other_names(stored)

    @functools.cached_property
    def _called(self) -> set[str]:
        """The functions and classes of the script that the program may call, without the task function."""
        called = self._reach(self._read_by_definition)
        if self._own_name in self._names:
            called.leave_out(carried.layers(self._names[self._own_name]))
        read = set().union(*(each.names.reads for each in self._below))
        called.read(read - {self._own_name}, self._names)
        return called.names.union(each.__qualname__.partition(".")[0] for each in called.functions + called.classes)

    def _is_change(self, use: _Use) -> bool:
        root, *attributes = use.path
        value = self._names.get(root)
        if root not in self._names or self._is_of_library(root):
            return False
        if isinstance(value, types.ModuleType) and not carried.is_users_module(value.__name__):
            return False
        if use.how == "stored":
            return bool(attributes) or not isinstance(value, _NO_OBJECTS)
        value = _look_up(value, attributes)
        if use.how == "a method":
            is_known = type(value).__module__ in ("builtins", "collections")  # and so are its methods that change it
            is_own = self._is_own_object(value) or self._has_inherited(value, use.callee)
            return is_own or (not is_known and _is_container(value) and self._has_form(value))
        if use.how == "kept" and self._is_of_library(use.callee):
            return False  # that makes something else of its argument
        parts = len(list(itertools.islice(self._parts(value), 2)))  # of numbers and texts in it, copies are used
        return parts > use.is_part and (self._is_own_object(value) or self._has_form(value))

    def _has_form(self, value: tp.Any) -> bool:
        """Whether a container counts: not those of libraries that have no canonical form."""
        if isinstance(value, (dict, list, set, collections.deque)):
            return True
        try:
            canonical.canonical(self._convert(value))
        except ConfigError:
            return isinstance(value, (types.SimpleNamespace, argparse.Namespace))
        return True

    def _has_inherited(self, cls: tp.Any, method: str) -> bool:
        """Whether a class has a method from another class of the project."""
        owners = (base for base in cls.__mro__ if method in vars(base)) if isinstance(cls, type) else ()
        return any(owner is not cls and self._is_own(owner) for owner in itertools.islice(owners, 1))

    def _paths_of(self, use: _Use) -> tp.Iterator[_Path]:
        """Where it changes something: of a class, maybe in any attribute."""
        path = use.path[:-1] if use.path[-1] == "*" else use.path
        value = _look_up(self._names[path[0]], path[1:])
        if isinstance(value, type) and (use.how == "a method" or path != use.path):
            members = [name for name, member in vars(value).items() if not reached.functions_of_member(member)]
            yield from ((*path, name) for name in members if not name.startswith("__"))
        else:
            yield path

    def _other_names(self, stored: tp.Iterable[_Path]) -> set[_Path]:
        """The other globals that are a changed object, have it in them, or are in it."""
        others = set[_Path]()
        parts: dict[str, set[int]] = {}
        for root, *attributes in stored:
            owner = self._names[root]
            if isinstance(owner, (type, types.ModuleType)):
                others |= {(name, *attributes) for name, other in self._names.items() if other is owner}
                continue
            changed = set(self._parts(_look_up(owner, attributes[:-1])))
            parts = parts or {name: set(self._parts(value)) for name, value in self._names.items()}
            others |= {(name,) for name in parts.keys() - {root} if not changed.isdisjoint(parts[name])}
        return others

    def _parts(self, value: tp.Any) -> tp.Iterator[int]:
        """The ids of a container or object of the project, and of those in it."""
        pending, seen = [value], set[int]()
        while pending and len(seen) < _MOST_PARTS:
            part = pending.pop()
            if id(part) in seen or not (_is_container(part) or self._is_own_object(part)):
                continue
            seen.add(id(part))
            yield id(part)
            if isinstance(part, (dict, list, collections.deque)):
                items = list(part.values()) if isinstance(part, dict) else list(part)
                pending += [item for item in items if type(item) not in SCALARS]
            pending += list(vars(part).values()) if type(part).__dictoffset__ else []

    def _is_own_object(self, value: tp.Any) -> bool:
        return not isinstance(value, _NO_OBJECTS) and self._is_own(type(value))

    def _is_own(self, cls: type) -> bool:
        return cls.__module__ == "__main__" or carried.is_users_module(cls.__module__)

    @functools.cached_property
    def _imports(self) -> dict[str, tuple[str, str | None]]:
        """The module that each imported name comes from and its name there, None for the module itself."""
        imports: dict[str, tuple[str, str | None]] = {}
        rebound: set[str] = set()
        for each in self._statements:
            node = each.node
            if isinstance(node, ast.Import):
                imports.update({each.asname or each.name.partition(".")[0]: (each.name, None) for each in node.names})
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                if node.level and self._names.get("__package__"):
                    module = importlib.util.resolve_name(module, self._names["__package__"])
                imports.update({each.asname or each.name: (module, each.name) for each in node.names})
            elif each.defined is None:
                rebound |= each.names.binds
        return {name: source for name, source in imports.items() if name not in rebound}

    def _is_of_library(self, name: str) -> bool:
        module, _ = self._imports.get(name, (None, None))
        return module is not None and not carried.is_users_module(module)

    # what the task function reads

    def _read_names(self) -> set[str]:
        task = self._reach(lambda name: self._read_by_definition(name) | self._read_for_value[name])
        task.read({self._own_name}, self._names)
        task.add(self._function)
        codes = [_names_in(each.__code__) for each in task.functions]
        codes += [each.names for name in task.names for each in self._definitions.get(name, ())]
        mentioned = set().union(*(code.mentions for code in codes))
        texts = set().union(*(code.texts for code in codes))
        is_by_text = any(map(carried.is_zen, carried.layers(self._function))) or not mentioned.isdisjoint(_BY_TEXT)
        task.read({name for name in self._handed_over(is_by_text) if name not in self._called}, self._names)
        if _finds_script(mentioned, texts) or not mentioned.isdisjoint(_VARIABLES_BY_TEXT):
            task.read(mentioned | {word for text in texts for word in re.findall(r"\w+", text)}, self._names)
        return task.names

    def _handed_over(self, is_by_text: bool) -> set[str]:
        """The functions and classes that other modules may call: all, if it finds them by a text."""
        loading = [each for each in self._statements if not each.is_program]
        given = set().union(*(each.names.reads for each in loading if isinstance(each.node, ast.Expr)))
        defined = [each for each in self._statements if each.defined is not None]
        return {str(each.defined) for each in defined if is_by_text or each.is_handed_over or each.defined in given}

    def _reach(self, read_by: tp.Callable[[str], set[str]]) -> reached.Reached:
        return reached.Reached(str(self._names.get("__name__")), read_by)

    def _read_by_definition(self, name: str) -> set[str]:
        return set().union(*(each.names.reads for each in self._definitions.get(name, ())))

    @functools.cached_property
    def _read_for_value(self) -> dict[str, set[str]]:
        """What loading reads to make the value of a global: an object of a library may hide functions that it calls."""
        read: dict[str, set[str]] = collections.defaultdict(set)
        for each in self._statements:
            if not each.is_program and each.defined is None:
                for name in each.names.binds.union(use.path[0] for use in each.uses() if use.how == "stored"):
                    read[name] |= each.names.reads
        return read


def _is_container(value: tp.Any) -> bool:
    return isinstance(value, _MUTABLE) or hasattr(type(value), "__array__")


def _look_up(value: tp.Any, attributes: tp.Iterable[str]) -> tp.Any:
    return functools.reduce(lambda owner, name: inspect.getattr_static(owner, name, None), attributes, value)


def _binds_unknown_names(statement: _Statement) -> bool:
    is_star = isinstance(statement.node, ast.ImportFrom) and statement.node.names[0].name == "*"
    names = statement.names
    return is_star or not names.reads.isdisjoint({"globals", "exec"}) or _finds_script(names.mentions, names.texts)


def _finds_script(mentioned: set[str], texts: set[str]) -> bool:
    """Whether code asks for the module of the script itself: ``sys.modules[__name__].SCALE``."""
    finds_modules = not mentioned.isdisjoint({"modules", "import_module"})
    return "__main__" in mentioned or (finds_modules and ("__name__" in mentioned or "__main__" in texts))
