"""Expressions that filter results, like ``lr > 0.01 and optimizer.name == 'adam'``. They are parsed, never run.

They have Python's comparisons, ``and``, ``or``, ``not``, ``in``, arithmetic, and dotted names; ``config['data-set']``
is a name that Python could not write. What a result does not have is unknown, as in SQL: a comparison with it is
neither true nor false, and only what is true is kept. ``acc is None`` asks for it.
"""

from __future__ import annotations

import ast
import datetime
import operator
import typing as tp

from hydra_exca.errors import ConfigError

from .column_names import MISSING

Environment = tp.Callable[[str], tp.Any]
"""The value of a name, `MISSING` where a result has none."""

_COMPARISONS: dict[type[ast.cmpop], tp.Callable[[tp.Any, tp.Any], tp.Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
_ORDERING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARITHMETIC: dict[type[ast.operator], tp.Callable[[tp.Any, tp.Any], tp.Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], tp.Callable[[tp.Any], tp.Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_MOST_CHARACTERS = 10_000
_NO_VALUE = (TypeError, ValueError, ArithmeticError, LookupError)


class Expression(ast.NodeVisitor):
    """A parsed expression. ``names`` are the dotted names in it. Raises ConfigError if it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: list[str] = []
        self.problem: str | None = None
        """The last comparison that had no answer, such as one of a number with a text."""
        try:
            if len(text) > _MOST_CHARACTERS:
                raise ValueError("it is too long")
            self._evaluate = self._compile(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"the filter {text!r:.200} cannot be read: {error}") from None

    def is_true(self, environment: Environment) -> bool:
        """Whether it holds for sure."""
        return _truth(self._evaluate(environment)) is True

    def _compile(self, node: ast.expr) -> tp.Callable[[Environment], tp.Any]:
        name = _dotted_name(node)
        if name is not None:
            self.names.append(name)
            return lambda environment: environment(name)
        return tp.cast("tp.Callable[[Environment], tp.Any]", self.visit(node))

    def generic_visit(self, node: ast.AST) -> tp.NoReturn:
        raise ValueError(f"{ast.unparse(node)!r:.60} is not allowed in a filter")

    def visit_Constant(self, node: ast.Constant) -> tp.Callable[[Environment], tp.Any]:
        return lambda environment: node.value

    def visit_List(self, node: ast.List | ast.Tuple | ast.Set) -> tp.Callable[[Environment], tp.Any]:
        parts = [self._compile(part) for part in node.elts]
        return lambda environment: [part(environment) for part in parts]

    visit_Tuple = visit_Set = visit_List  # noqa: N815

    def visit_Subscript(self, node: ast.Subscript) -> tp.Callable[[Environment], tp.Any]:
        return self._apply(operator.getitem, node, node.value, node.slice)

    def visit_BinOp(self, node: ast.BinOp) -> tp.Callable[[Environment], tp.Any]:
        function = _ARITHMETIC.get(type(node.op))
        if function is None:
            self.generic_visit(node)
        return self._apply(function, node, node.left, node.right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> tp.Callable[[Environment], tp.Any]:
        if isinstance(node.op, ast.Not):
            operand = self._compile(node.operand)
            return lambda environment: None if (truth := _truth(operand(environment))) is None else not truth
        function = _UNARY.get(type(node.op))
        if function is None:
            self.generic_visit(node)
        return self._apply(function, node, node.operand)

    def visit_Compare(self, node: ast.Compare) -> tp.Callable[[Environment], tp.Any]:
        operands = [node.left, *node.comparators]
        parts = [self._pair(*pair) for pair in zip(node.ops, operands, operands[1:], strict=False)]
        return lambda environment: _all(part(environment) for part in parts)

    def _pair(self, compare: ast.cmpop, left: ast.expr, right: ast.expr) -> tp.Callable[[Environment], tp.Any]:
        node = ast.Compare(left, [compare], [right])
        function = _COMPARISONS[type(compare)]
        if any(isinstance(side, ast.Constant) and side.value is None for side in (left, right)):
            sides = [self._compile(side) for side in (left, right)]
            return lambda environment: function(*(_none_if_missing(side(environment)) for side in sides))
        return self._apply(lambda one, other: function(*_as_same_kind(one, other)), node, left, right)

    def visit_BoolOp(self, node: ast.BoolOp) -> tp.Callable[[Environment], tp.Any]:
        parts = [self._compile(part) for part in node.values]
        combine = _all if isinstance(node.op, ast.And) else _any
        return lambda environment: combine(_truth(part(environment)) for part in parts)

    def _apply(
        self, function: tp.Callable[..., tp.Any], node: ast.expr, *operands: ast.expr
    ) -> tp.Callable[[Environment], tp.Any]:
        """Calls a function of the operands; unknown if one is, or if it has no answer."""
        parts = [self._compile(operand) for operand in operands]

        def call(environment: Environment) -> tp.Any:
            values = [part(environment) for part in parts]
            if any(value is MISSING for value in values):
                return MISSING
            try:
                return function(*values)
            except _NO_VALUE as error:
                self.problem = f"{ast.unparse(node)}: {error}"
                return MISSING

        return call


def _dotted_name(node: ast.expr) -> str | None:
    """The name that attributes and subscripts with texts make, None if it is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted_name(node.value)
        return None if above is None else f"{above}.{node.attr}"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        above = _dotted_name(node.value)
        return None if above is None else f"{above}.{node.slice.value}"
    return None


def _truth(value: tp.Any) -> bool | None:
    return None if value is MISSING or value is None else bool(value)


def _none_if_missing(value: tp.Any) -> tp.Any:
    return None if value is MISSING else value


def _all(truths: tp.Iterable[tp.Any]) -> bool | None:
    results = [_truth(truth) for truth in truths]
    return False if False in results else None if None in results else True


def _any(truths: tp.Iterable[tp.Any]) -> bool | None:
    results = [_truth(truth) for truth in truths]
    return True if True in results else None if None in results else False


def _as_same_kind(one: tp.Any, other: tp.Any) -> tuple[tp.Any, tp.Any]:
    """Both values; a text beside a time is read as one: ``started > '2026-01-31'``."""
    if isinstance(one, datetime.datetime) and isinstance(other, str):
        return one, datetime.datetime.fromisoformat(other).astimezone()
    if isinstance(other, datetime.datetime) and isinstance(one, str):
        return datetime.datetime.fromisoformat(one).astimezone(), other
    return one, other
