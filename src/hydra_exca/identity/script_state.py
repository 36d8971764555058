"""What a script has changed below its guard, and what its task function reads of that: jobs would not know it.

Found in the script's text: what the statements below the guard and the functions that they call bind, delete or store
into. Values are those at the launch.
"""

from __future__ import annotations

import ast
import builtins
import collections
import contextlib
import dataclasses
import dis
import functools
import importlib.util
import inspect
import logging
import re
import sys
import types
import typing as tp

from hydra_exca import script

from . import carried

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
        return not inspect.isroutine(value) or inspect.ismethod(value)


def read_changes(function: tp.Any) -> list[Change]:
    """What the program has changed until now and ``function``, or what it calls in the script, reads.

    If the function is in another module, and a function of that module has launched, the same of that module.
    """
    target = carried.target_of(function)
    readers = []
    main = sys.modules.get("__main__")
    names = _program_names(target)
    nodes = _nodes_of(names)
    if nodes:
        is_loaded = names is not script.main_names() or script.running_script() is not None
        statements = list(_flat(nodes, script.current_line(names), is_program=not is_loaded))
        readers.append(_ScriptReader(None, names, statements, function, is_loaded))
    module = sys.modules.get(str(getattr(target, "__module__", None)))
    launching = [] if module is None or module is main else _running_functions(module)
    if module is not None and launching and carried.is_users_module(module.__name__):
        statements = [each for each in _flat(_nodes_of(vars(module)), None) if not each.is_program]
        calls = ast.parse("\n".join(f"{name}()" for name in launching)).body
        statements += [_Statement(call, is_program=True) for call in calls]
        readers.append(_ScriptReader(module, vars(module), statements, function, is_loaded=True))
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

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_READ = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_MENTIONING = (*_READ, "LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_NAME", "IMPORT_FROM", "LOAD_CLOSURE")


class _CodeNames(tp.NamedTuple):
    """The names in compiled code: globals that it reads, those that it binds, those that functions in it bind.

    ``mentions`` are the globals, attributes and modules that it reads, ``texts`` are those in it.
    """

    reads: set[str]
    binds: set[str]
    binds_inside: set[str]
    mentions: set[str]
    texts: set[str]


def _names_in(outermost: types.CodeType) -> _CodeNames:
    names = _CodeNames(set(), set(), set(), set(), set())
    for code in carried.nested_codes(outermost):
        names.texts.update(each for each in code.co_consts if isinstance(each, str))
        for each in dis.get_instructions(code):
            kind, _, where = each.opname.partition("_")
            if each.opname in _MENTIONING:
                names.mentions.add(str(each.argval))
            if each.opname in _READ:
                names.reads.add(each.argval)
            elif kind in ("STORE", "DELETE") and where == "GLOBAL" and code is not outermost:
                names.binds_inside.add(each.argval)
            elif kind in ("STORE", "DELETE") and where in ("NAME", "GLOBAL") and code is outermost:
                names.binds.add(each.argval)
    return names


class _Statement:
    """A statement of the top level, without those inside it. If it ``is_program``, no job runs it."""

    def __init__(self, node: ast.stmt, is_program: bool) -> None:
        self.node = node
        self.is_program = is_program

    @functools.cached_property
    def names(self) -> _CodeNames:
        if isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__":
            return _CodeNames(set(), set(), set(), set(), set())
        loop = ast.While(ast.Constant(True), [self.node], [])  # in which a break may stand
        module = ast.fix_missing_locations(ast.Module([loop], []))
        return _names_in(compile(module, "", "exec", dont_inherit=True))

    @functools.cached_property
    def stores(self) -> list[_Store]:
        """What it, or a function that it defines, stores into or may change."""
        aliases = dict(_aliases(self.node))
        if isinstance(self.node, ast.ClassDef):
            aliases["cls"] = (self.node.name,)
        stores = []
        for store in _stores(self.node):
            root, *attributes = store.path
            if root == "cls" and root in aliases:
                stores.append(store._replace(path=(*aliases[root], *attributes)))
            elif root in self.names.reads:
                stores.append(store)
            elif root in aliases:
                stores.append(store._replace(path=aliases[root]))
        return stores

    def called_parts(self, attributes: tp.Container[str]) -> list[_Statement]:
        """The function; of a class, the methods that may be called if these ``attributes`` are read."""
        if not isinstance(self.node, ast.ClassDef):
            return [self]
        parts = []
        for part in self.node.body:
            name = getattr(part, "name", None)
            if name is not None and (name in attributes or name.startswith("__")):
                inside = ast.ClassDef(self.node.name, [], [], [part], [], **_NO_PARAMETERS)
                parts.append(_Statement(ast.copy_location(inside, part), is_program=False))
        return parts

    @property
    def decorators(self) -> set[str]:
        decorators = [getattr(each, "func", each) for each in getattr(self.node, "decorator_list", ())]
        return {path[0] for path in map(_path, decorators) if path is not None}

    @property
    def has_parents(self) -> bool:
        return isinstance(self.node, ast.ClassDef) and bool(self.node.bases or self.node.keywords)

    @property
    def defined(self) -> str | None:
        return self.node.name if isinstance(self.node, _DEFINITIONS) else None


class _Store(tp.NamedTuple):
    """``how``: "stored" is certain, "called" the call of the method ``callee``.

    "passed" and "given" is an argument of what ``callee`` names; the result of the second is not used.
    """

    path: _Path
    how: str
    callee: str = ""


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
    """Whether a comparison in it has another result in a job than in the program."""
    compared = [part for part in ast.walk(node) if isinstance(part, ast.Compare)]
    return any(isinstance(part, ast.Name) and part.id == "__name__" for each in compared for part in ast.walk(each))


_NO_PARAMETERS: dict[str, tp.Any] = {"type_params": []} if sys.version_info >= (3, 12) else {}


# -- what they store into ----------------------------------------------------------------------------------------------

_CHANGING = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"),
    *("update", "setdefault", "popitem", "add", "discard", "__setitem__", "__delitem__"),
    *("difference_update", "intersection_update", "symmetric_difference_update"),
    *("appendleft", "extendleft", "popleft", "rotate", "subtract", "move_to_end"),
}


def _stores(node: ast.stmt) -> tp.Iterator[_Store]:
    results = [part.value for part in ast.walk(node) if isinstance(part, ast.Expr)]
    for part in ast.walk(node):
        if isinstance(part, (ast.Attribute, ast.Subscript)) and not isinstance(part.ctx, ast.Load):
            yield from _stored(part)
        elif isinstance(part, ast.Call):
            yield from _changed_by_call(part, is_unused=part in results)


def _stored(target: ast.Attribute | ast.Subscript) -> tp.Iterator[_Store]:
    path = _path(target)
    if path is not None:
        yield _Store(path, "stored")


def _changed_by_call(call: ast.Call, is_unused: bool) -> tp.Iterator[_Store]:
    callee = _path(call.func)
    if isinstance(call.func, ast.Attribute):
        owner = _path(call.func.value)
        if owner is not None:
            yield _Store(owner, "stored" if call.func.attr in _CHANGING else "called", call.func.attr)
    given = [*call.args, *(each.value for each in call.keywords)]
    if callee in (("setattr",), ("delattr",)) and len(given) > 1 and isinstance(given[1], ast.Constant):
        owner = _path(given[0])
        if owner is not None:
            yield _Store((*owner, str(given[1].value)), "stored")
    for value in given:
        value = value.value if isinstance(value, ast.Starred) else value
        path = _path(value) if isinstance(value, (ast.Name, ast.Attribute)) else None
        if path is not None and callee is not None:
            yield _Store(path, "given" if is_unused else "passed", callee[0])


def _path(node: ast.expr) -> _Path | None:
    """The name and attributes that an expression begins with, up to a subscript or a call; None if with no name."""
    attributes: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        elif isinstance(node, (ast.Subscript, ast.NamedExpr)):
            if isinstance(node, ast.Subscript):
                attributes.clear()
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            attributes.clear()
            node = node.func.value
        else:
            return None
    return (node.id, *reversed(attributes))


def _aliases(node: ast.stmt) -> tp.Iterator[tuple[str, _Path]]:
    """Other names that functions give to what a name leads to."""
    for part in ast.walk(node):
        pairs: list[tuple[ast.expr | None, ast.expr | None]] = []
        if isinstance(part, ast.Assign):
            pairs = [(target, part.value) for target in part.targets]
        elif isinstance(part, (ast.AnnAssign, ast.NamedExpr)):
            pairs = [(part.target, part.value)]
        elif isinstance(part, (ast.For, ast.comprehension)):
            pairs = [(part.target, part.iter)]
        elif isinstance(part, ast.withitem):
            pairs = [(part.optional_vars, part.context_expr)]
        for target, value in pairs:
            path = None if value is None else _path(value)
            if isinstance(target, ast.Name) and path is not None:
                yield target.id, path


# -- what has changed and is read --------------------------------------------------------------------------------------

# what finds functions by a text: in a configuration, or in the code
_BY_CODE = {"globals", "eval", "exec"}
_BY_TEXT = {*_BY_CODE, "instantiate", "call", "get_class", "get_method", "get_object", "modules"}
_MOST_PARTS = 10_000  # of one object, that are objects themselves
_PLAIN = (list, dict, set, bytearray, collections.deque, types.SimpleNamespace)


class _ScriptReader:
    """Reads what has changed in one module: the script, or the one that has launched."""

    def __init__(
        self,
        module: types.ModuleType | None,
        names: _Names,
        statements: list[_Statement],
        function: tp.Any,
        is_loaded: bool,
    ) -> None:
        """``module`` is None for the script."""
        self._module = module
        self._names = names
        self._statements = statements
        self._function = function
        self._is_loaded_by_jobs = is_loaded
        target = carried.target_of(function)
        name, _, inside = str(getattr(target, "__qualname__", "")).partition(".")
        is_here = getattr(target, "__module__", None) == names.get("__name__")
        self._own_name = name if is_here and "<" not in inside else ""

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
        below = [each for each in self._statements if each.is_program and each.defined != self._own_name]
        if not below:
            return set(), set()
        called = self._called_by(below)
        names = set().union(*(each.names.binds | each.names.binds_inside for each in below))
        names.update(*(each.names.binds_inside for each in called))
        if any(map(_binds_unknown_names, (*below, *called))):
            names.update(self._names)
            names.difference_update(*(each.names.binds for each in self._statements if each.defined is not None))
        stored: set[_Path] = set()
        for each in (*below, *called):
            for store in filter(self._is_changed_by, each.stores):
                stored |= {store.path, *self._other_names(store.path)}
        return {(name,) for name in names if not name.startswith("__")}, stored

    def _other_names(self, path: _Path) -> set[_Path]:
        """The other globals that are the changed object, have it in them, or are in it."""
        root, *attributes = path
        owner = self._names[root]
        others = [(name, other) for name, other in list(self._names.items()) if name != root]
        if isinstance(owner, (type, types.ModuleType)):
            return {(name, *attributes) for name, other in others if other is owner}
        for attribute in attributes[:-1]:
            owner = inspect.getattr_static(owner, attribute, None)
        changed = set(self._parts(owner))
        return {(name,) for name, other in others if changed and not changed.isdisjoint(self._parts(other))}

    def _parts(self, value: tp.Any) -> tp.Iterator[int]:
        """The ids of a container or object of the project, and of those in it."""
        pending, seen = [value], set[int]()
        while pending and len(seen) < _MOST_PARTS:
            part = pending.pop()
            is_plain = isinstance(part, _PLAIN)
            if id(part) in seen or not (is_plain or self._is_own_object(part)):
                continue
            seen.add(id(part))
            yield id(part)
            if isinstance(part, (dict, list, collections.deque)):
                pending += list(part.values()) if isinstance(part, dict) else list(part)
            pending += list(vars(part).values()) if type(part).__dictoffset__ else []

    def _is_own_object(self, value: tp.Any) -> bool:
        return not isinstance(value, (type, types.ModuleType, types.FunctionType)) and self._is_own_class(type(value))

    def _called_by(self, below: tp.Sequence[_Statement]) -> list[_Statement]:
        """The functions and methods of the script that these statements may call, without the task function."""
        mentioned = set().union(*(each.names.reads for each in below))
        reached = self._reach(mentioned, blocked={self._own_name}, only_called=True)
        definitions = [each for each in self._statements if not each.is_program and each.defined in reached]
        called = [*below, *definitions]
        attributes = set().union(*(each.names.mentions for each in called))
        return [part for each in definitions for part in each.called_parts(attributes)]

    def _is_changed_by(self, store: _Store) -> bool:
        root, *attributes = store.path
        value = self._names.get(root, _MISSING)
        if value is _MISSING or self._is_of_library(root):
            return False
        if isinstance(value, types.ModuleType) and not carried.is_users_module(value.__name__):
            return False
        if store.how == "stored":
            return bool(attributes) or not isinstance(value, (type, types.ModuleType, types.FunctionType))
        for attribute in attributes:
            value = inspect.getattr_static(value, attribute, None)
        is_own = not isinstance(value, (type, types.ModuleType)) and self._is_own_class(type(value))
        if store.how == "called":
            return is_own and self._changes_itself(type(value), store.callee, set())
        callee = store.callee
        is_own_call = callee not in vars(builtins) and (store.how == "given" or not self._is_of_library(callee))
        return is_own_call and (is_own or isinstance(value, _PLAIN))

    def _changes_itself(self, cls: type, method: str, seen: set[str]) -> bool:
        """Whether a method may change its object: one that is not in this text, or stores into it."""
        owner = next((base for base in cls.__mro__ if method in vars(base)), cls)
        classes = [
            each.node for each in self._leading_on.get(owner.__name__, ()) if isinstance(each.node, ast.ClassDef)
        ]
        definitions = [part for node in classes for part in node.body if getattr(part, "name", None) == method]
        if len(definitions) != 1 or not isinstance(definitions[0], _FUNCTIONS) or not definitions[0].args.args:
            return True
        own, aliases = definitions[0].args.args[0].arg, dict(_aliases(definitions[0]))
        for store in _stores(definitions[0]):
            if store.how in ("passed", "given") and store.callee in vars(builtins):
                continue
            path = aliases.get(store.path[0], store.path)
            is_own_method = store.how == "called" and path == (own,)
            if is_own_method and store.callee not in seen:
                seen.add(store.callee)
                if self._changes_itself(cls, store.callee, seen):
                    return True
            elif path[0] == own and not is_own_method:
                return True
        return False

    def _is_own_class(self, cls: type) -> bool:
        return cls.__module__ == "__main__" or carried.is_users_module(cls.__module__)

    @functools.cached_property
    def _imports(self) -> dict[str, tuple[str, str | None]]:
        """The module that each imported name comes from and its name there, None for the module itself."""
        imports: dict[str, tuple[str, str | None]] = {}
        for each in self._statements:
            node = each.node
            if isinstance(node, ast.Import):
                imports.update({each.asname or each.name.partition(".")[0]: (each.name, None) for each in node.names})
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                if node.level and self._names.get("__package__"):
                    module = importlib.util.resolve_name(module, self._names["__package__"])
                imports.update({each.asname or each.name: (module, each.name) for each in node.names})
        others = [each for each in self._statements if not isinstance(each.node, (ast.Import, ast.ImportFrom))]
        rebound = set().union(*(each.names.binds for each in others if each.defined is None))
        return {name: source for name, source in imports.items() if name not in rebound}

    def _is_of_library(self, name: str) -> bool:
        module, _ = self._imports.get(name, (None, None))
        return module is not None and not carried.is_users_module(module)

    # what the task function reads

    def _read_names(self) -> set[str]:
        own = self._codes_of(self._function)
        reached = self._reach(set().union({self._own_name}, *(code.reads for code in own)))
        codes = [*own, *(each.names for name in reached for each in self._leading_on.get(name, ()))]
        mentioned = set().union(*(code.mentions for code in codes))
        texts = set().union(*(code.texts for code in codes))
        found = self._handed_over
        if not mentioned.isdisjoint(_BY_TEXT):  # it may find any function, and a variable that a text names
            found = {each.defined for each in self._statements if each.defined is not None}
        only_program = self._defined_for_program() - reached if found else set()
        if "__main__" in mentioned | texts or {"modules", "__name__"} <= mentioned:  # sys.modules[__name__].SCALE
            reached |= self._reach(mentioned)
        return reached | self._reach((found - only_program) | _named_in(texts, mentioned))

    def _defined_for_program(self) -> set[str]:
        below = [each for each in self._statements if each.is_program]
        return {each.defined for each in self._called_by(below) if each.defined is not None}

    @functools.cached_property
    def _handed_over(self) -> set[str]:
        """The functions and classes that loading gives to other modules, which may call them.

        By decorators, calls and the classes above them.
        """
        loading = [each for each in self._statements if not each.is_program]
        defined = {each.defined: each for each in loading if each.defined is not None}
        given = {name for name, each in defined.items() if each.decorators & self._imports.keys() or each.has_parents}
        for each in loading:
            given |= defined.keys() & each.names.reads if isinstance(each.node, ast.Expr) else set()
        return given

    def _codes_of(self, function: tp.Any) -> list[_CodeNames]:
        """The names in the code of a function, of its decorators, and of what they have captured."""
        codes, pending, seen = [], [function], set[int]()
        while pending:
            for layer in carried.layers(pending.pop()):
                if id(layer) in seen:
                    break
                seen.add(id(layer))
                by_name = {"instantiate"} if carried.is_zen(layer) else set[str]()
                codes.append(_CodeNames(self._names_of_classes(layer), set(), set(), by_name, set()))
                if inspect.isfunction(layer):
                    pending += filter(callable, carried.captured_variables(layer).values())
                    names = _names_in(layer.__code__)
                    codes.append(names if layer.__globals__ is self._names else names._replace(reads=set()))
        return codes

    def _names_of_classes(self, layer: tp.Any) -> set[str]:
        """The globals that are the class of a method or callable object, or a class above it."""
        owner = layer.__self__ if inspect.ismethod(layer) or inspect.isbuiltin(layer) else layer
        kind = owner if isinstance(owner, type) else type(owner)
        own = str(self._names.get("__name__"))
        return {each.__qualname__.partition(".")[0] for each in kind.__mro__ if each.__module__ == own}

    def _reach(self, names: set[str], blocked: tp.Container[str] = (), only_called: bool = False) -> set[str]:
        """These names, and what their definitions lead to. ``only_called``: not by values that loading makes."""
        reached: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name in reached or name in blocked:
                continue
            reached.add(name)
            for statement in self._leading_on.get(name, ()):
                if statement.defined is not None:
                    pending += [statement.defined, *statement.names.reads]
                elif statement.is_program:  # its value is known
                    pending += self._reads_of_value(name)
                elif not only_called or self._reads_of_value(name):
                    pending += statement.names.reads
        return reached

    def _reads_of_value(self, name: str) -> set[str]:
        """What an object of the script's own classes, or one that calls functions of the script, may read."""
        value = self._names.get(name)
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return set()
        is_own = self._is_own_class(type(value))
        return set().union(*(code.reads for code in self._codes_of(value))) if callable(value) or is_own else set()

    @functools.cached_property
    def _leading_on(self) -> dict[str, list[_Statement]]:
        """The statements that define each name, store into it, or decorate with it."""
        leading: dict[str, list[_Statement]] = collections.defaultdict(list)
        loading = [each for each in self._statements if not each.is_program]
        used_by_loading = {name for each in loading if each.defined is None for name in each.names.reads}
        used_by_loading.update(*(each.decorators for each in loading))
        for each in self._statements:
            bound = each.names.binds if each.defined is None else {each.defined}  # most definitions are not compiled
            names = bound | (each.decorators - self._imports.keys())
            if not each.is_program and (each.defined is None or each.defined in used_by_loading):
                names |= {store.path[0] for store in each.stores if store.how == "stored"}
            for name in names:
                leading[name].append(each)
        return leading


def _named_in(texts: tp.Iterable[str], mentioned: tp.Collection[str]) -> set[str]:
    """The variables that texts may name, to code that finds something by a text."""
    if _BY_TEXT.isdisjoint(mentioned):
        return set()
    if _BY_CODE.isdisjoint(mentioned):  # in a sentence, which is not code, no word is a name
        texts = (text for text in texts if re.fullmatch(r"[\w.]+", text))
    return {word for text in texts for word in re.findall(r"\w+", text)}


def _binds_unknown_names(statement: _Statement) -> bool:
    is_star = isinstance(statement.node, ast.ImportFrom) and statement.node.names[0].name == "*"
    return is_star or not statement.names.reads.isdisjoint({"globals", "exec"})


_MISSING = object()
