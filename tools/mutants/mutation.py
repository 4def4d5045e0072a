"""Makes mutants: each one small fault in the source of a module.

What is changed:

- a comparison: ``<`` and ``<=``, ``>`` and ``>=``, ``==`` and ``!=``, ``is`` and ``is not``, ``in`` and ``not in``;
- ``and`` and ``or``; a ``not`` is left out; a condition is always true, and always false;
- ``+`` and ``-``, ``*`` and ``//``, ``<<`` and ``>>``, ``&`` and ``|``, and the like, with ``+=`` too;
- a number is one more; True is False, and False is True;
- a call, an assignment to an attribute or an item, a ``raise``, ``break``, ``continue`` or a ``del`` is left out;
- what is returned is None;
- an exception is not caught or suppressed; a loop has nothing to loop over.

What is left alone, since no check can see it or a type checker does: annotations, docstrings, texts, ``assert``,
``__all__`` and ``__slots__``, overloads, abstract methods, and code for another version of Python or another system.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutant", "mutants_of"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        file: The path of the module, in the package's folder.
        function: The qualified name of the function, or of the class, that it is in; "" for the module.
        line: The first line of the statement, stripped.
        change: What is changed to what, each on one line: ``a < b -> a <= b``.
        number: Which of those that are the same in all of the above, from 0.
        lines: The numbers of the lines that run when the place is reached.
        names: The names that the statement gives values at the import; None for code in functions.
        start, end: The bytes of the source that are replaced.
        text: By what.
    """

    file: str
    function: str
    line: str
    change: str
    number: int
    lines: tuple[int, ...]
    names: tuple[str, ...] | None
    start: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """What it is recognised by, which outlives a change of the lines around it."""
        return "\n".join((self.file, self.function, self.line, self.change, str(self.number)))

    def applied_to(self, source: str) -> str:
        """Return the source of the module with the fault in it."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()


def mutants_of(source: str, file: str) -> list[Mutant]:
    """Return the mutants of a module, in the order of the source.

    Args:
        source: Its text.
        file: Its path, as `Mutant.file` has it.
    """
    maker = _Maker(source, file)
    maker.block(ast.parse(source).body)
    return sorted(maker.found, key=lambda mutant: (mutant.start, mutant.end, mutant.change))


_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_SKIPPED_DECORATORS = {"overload", "abstractmethod"}
_SKIPPED_NAMES = {"__all__", "__slots__", "__match_args__"}
_TYPES = {"TypeVar", "ParamSpec", "NewType", "NamedTuple"}
_GENERICS = {"Literal", "Callable", "Awaitable", "Sequence", "Mapping", "WebSocketOptions", "dict", "tuple", "type"}
_OTHER_SYSTEMS = ("sys.version_info", "sys.platform", "TYPE_CHECKING")


class _Maker:
    def __init__(self, source: str, file: str) -> None:
        self._file = file
        self._data = source.encode()
        self._text_lines = source.splitlines()
        self._offsets = [0]
        for line in self._data.splitlines(keepends=True):
            self._offsets.append(self._offsets[-1] + len(line))
        self._scope: list[str] = []
        self._is_function = False
        self._lines: tuple[int, ...] = ()
        self._names: tuple[str, ...] | None = ()
        self._statement = ""
        self._seen: dict[tuple[str, str, str], int] = {}
        self.found: list[Mutant] = []

    # ---- statements --------------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self._visit(statement)

    def _visit(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif not _is_left_alone(node):
            self._place(node)
            self._change_statement(node)
            for expression in _expressions(node):
                self._expression(expression)
            for body in _blocks(node):
                self.block(body)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}
        if decorators & _SKIPPED_DECORATORS:
            return
        self._place(node, node.name)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self._expression(default)
        was_function = self._is_function
        self._scope.append(node.name)
        self._is_function = True
        self.block(node.body)
        self._scope.pop()
        self._is_function = was_function

    def _class(self, node: ast.ClassDef) -> None:
        if any(ast.unparse(base).partition("[")[0] in ("Protocol", "TypedDict") for base in node.bases):
            return
        was_function = self._is_function
        self._scope.append(node.name)
        self._is_function = False
        self.block(node.body)
        self._scope.pop()
        self._is_function = was_function

    def _place(self, node: ast.stmt, name: str = "") -> None:
        """Note where the mutants that follow are."""
        bodies = _blocks(node)
        last = max([node.lineno, *(_end(part) for part in _expressions(node))]) if bodies else _end(node)
        self._lines = tuple(range(node.lineno, last + 1))
        self._statement = self._text_lines[node.lineno - 1].strip()
        self._names = None if self._is_function else (name, *self._scope[-1:]) if name else _targets(node)

    def _change_statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant() | ast.Yield() | ast.YieldFrom()):
                pass
            case ast.Expr() | ast.Raise() | ast.Break() | ast.Continue() | ast.Delete():
                self._add(node, "pass")
            case ast.Assign(targets=targets) if all(isinstance(to, ast.Attribute | ast.Subscript) for to in targets):
                self._add(node, "pass")
            case ast.AnnAssign(target=ast.Attribute()) if node.value is not None:
                self._add(node, "pass")
            case ast.AugAssign():
                self._add(node, "pass")
                self._add_changed(node, op=_OPERATED.get(type(node.op)))
            case ast.Return(value=None):
                self._add(node, "pass")
            case ast.Return(value=value) if not (isinstance(value, ast.Constant) and value.value is None):
                self._add(node, "return None")
            case ast.If() | ast.While():
                self._conditions(node.test, loops=isinstance(node, ast.While))
            case ast.For():
                self._add(node.iter, "()")
            case ast.Try():
                for handler in node.handlers:
                    if handler.type is not None:
                        self._add(handler.type, "()")
            case _:
                pass

    # ---- expressions -------------------------------------------------------------------------------------------------

    def _expression(self, node: ast.expr) -> None:
        for part in _parts(node):
            self._change_expression(part)

    def _change_expression(self, node: ast.expr) -> None:
        match node:
            case ast.Compare():
                for index, op in enumerate(node.ops):
                    changed = copy.deepcopy(node)
                    changed.ops[index] = _COMPARED[type(op)]()
                    self._add(node, ast.unparse(changed))
            case ast.BoolOp():
                self._add_changed(node, op=ast.Or if isinstance(node.op, ast.And) else ast.And)
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                self._add(node, ast.unparse(node.operand))
            case ast.BinOp():
                self._add_changed(node, op=_OPERATED.get(type(node.op)))
            case ast.Constant(value=bool(value)):
                self._add(node, str(not value))
            case ast.Constant(value=int(value) | float(value)):
                self._add(node, repr(value + 1))
            case ast.IfExp():
                self._conditions(node.test)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                for part in node.generators:
                    for test in part.ifs:
                        self._conditions(test)
            case ast.Call(func=func) if ast.unparse(func).rpartition(".")[2] == "suppress" and node.args:
                self._add(node, f"{ast.unparse(func)}()")
            case _:
                pass

    def _conditions(self, test: ast.expr, *, loops: bool = False) -> None:
        if isinstance(test, ast.Constant):
            return
        self._add(test, "False")
        if not loops:
            self._add(test, "True")

    def _add_changed(self, node: Any, *, op: type[ast.AST] | None) -> None:
        if op is not None:
            changed = copy.deepcopy(node)
            changed.op = op()
            self._add(node, ast.unparse(changed))

    def _add(self, node: ast.stmt | ast.expr, text: str) -> None:
        """Add the mutant that has ``text`` in the place of ``node``, with as many lines."""
        start = self._offsets[node.lineno - 1] + node.col_offset
        end = self._offsets[_end(node) - 1] + (node.end_col_offset or 0)
        change = f"{ast.unparse(node)} -> {text}"
        change = " ".join(change.split())
        function = ".".join(self._scope)
        place = (function, self._statement, change)
        number = self._seen.get(place, -1) + 1
        self._seen[place] = number
        padding = "\n" * (_end(node) - node.lineno)
        written = f"{text}{padding}" if isinstance(node, ast.stmt) else f"({text}{padding})"
        names = self._names
        self.found.append(
            Mutant(self._file, function, self._statement, change, number, self._lines, names, start, end, written)
        )


def _end(node: ast.stmt | ast.expr) -> int:
    return node.end_lineno or node.lineno


def _is_left_alone(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Pass() | ast.Global() | ast.Nonlocal():
            return True
        case ast.If(test=test):
            return any(name in ast.unparse(test) for name in _OTHER_SYSTEMS)
        case ast.Raise(exc=exc):
            return exc is not None and ast.unparse(exc) == "NotImplementedError"
        case ast.Assign() | ast.AnnAssign():
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                return True
            value = node.value
            return (value is not None and _is_type(value)) or bool(_SKIPPED_NAMES & set(_targets(node)))
        case _:
            return False


def _is_type(value: ast.expr) -> bool:
    """Tell whether an expression is a type, or makes one."""
    match value:
        case ast.Call() | ast.Subscript():
            return _name_of(value) in (_TYPES if isinstance(value, ast.Call) else _GENERICS)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_type(left) or _is_type(right)
        case ast.Name(id=name):
            return name in ("str", "bytes", "int", "float")
        case _:
            return False


def _name_of(node: ast.Call | ast.Subscript) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node.value).rpartition(".")[2]


def _targets(node: ast.stmt) -> tuple[str, ...]:
    """Return the names that a statement gives values."""
    found = [part for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
    return tuple(part.id for part in found)


def _blocks(node: ast.stmt) -> list[list[ast.stmt]]:
    """Return the statements inside a statement."""
    found: list[list[ast.stmt]] = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
    handlers: list[ast.ExceptHandler] = getattr(node, "handlers", [])
    cases: list[ast.match_case] = getattr(node, "cases", [])
    found += [handler.body for handler in handlers]
    found += [case.body for case in cases]
    return [block for block in found if block]


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions of a statement itself, without its annotation and the statements inside it."""
    annotation: ast.expr | None = getattr(node, "annotation", None)
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.expr) and part is not annotation:
            yield part
        elif isinstance(part, ast.withitem):
            yield part.context_expr
        elif isinstance(part, ast.match_case) and part.guard is not None:
            yield part.guard
        elif isinstance(part, ast.ExceptHandler) and part.type is not None:
            yield part.type


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    """Yield an expression and those inside it that are to be changed."""
    if isinstance(node, ast.JoinedStr):
        return  # texts, and what is shown in them
    yield node
    a_type = node.args[0] if isinstance(node, ast.Call) and node.args and _name_of(node) == "cast" else None
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.expr) and part is not a_type:
            yield from _parts(part)
        elif isinstance(part, ast.keyword):
            yield from _parts(part.value)
        elif isinstance(part, ast.comprehension):
            for inner in (part.iter, *part.ifs):
                yield from _parts(inner)
        elif isinstance(part, ast.arguments):  # of a lambda
            for default in (*part.defaults, *part.kw_defaults):
                if default is not None:
                    yield from _parts(default)
