"""Row filters such as `priority > 3 and resolution == "1080P"`: Python's own grammar, of which a few forms are known.

Comparisons of columns and values, `and or not`, `in (1, 2)`, `"word" in prompt`, `is None`; col("odd name") for columns
that are no names. A row for which the answer is unknown (it has no value there) is not taken.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError

MAX_CHARS = 1000
CONSTANTS = {"null": None, "true": True, "false": False}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
FORMS = 'COLUMN == VALUE, != < <= > >=, in (A, B), "TEXT" in COLUMN, is None, and, or, not'


class Where:
    """A parsed filter. ConfigError for what it cannot be, with the place."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_CHARS:
            raise ConfigError(f"where: {len(text)} characters, expected at most {MAX_CHARS}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self.columns = frozenset(self._columns(self._tree))
        except SyntaxError as error:
            at = f" at character {error.offset}" if error.offset else ""
            hint = "; equality is written ==" if text.strip()[(error.offset or 0) - 1 :][:1] == "=" else ""
            raise ConfigError(f"where={text}: {error.msg}{at}{hint}") from error
        except (RecursionError, MemoryError, ValueError) as error:
            raise ConfigError(f"where={text[:60]}: it cannot be read ({error})") from error

    def mask(self, data: pa.RecordBatch) -> pa.BooleanArray:
        """True for the rows that are taken. ConfigError if a comparison does not fit a column's type."""
        answer = _Evaluation(self, data).of(self._tree)
        if isinstance(answer, pa.Scalar):
            answer = pa.array([answer.as_py()] * data.num_rows, answer.type)
        if not pa.types.is_boolean(answer.type):
            self.fail(self._tree, f"a condition is expected, got values of {answer.type}")
        return answer.fill_null(False)

    def fail(self, node: ast.AST, reason: str) -> NoReturn:
        start = getattr(node, "col_offset", 0)
        shown = ast.get_source_segment(self.text.strip(), node) or ""
        raise ConfigError(f"where={self.text}: {reason}, at character {start + 1}: {shown}")

    def _columns(self, node: ast.AST) -> list[str]:
        name = column_name(node)
        if name is not None:
            return [name]
        if isinstance(node, ast.Call):
            self.fail(node, f'a call is not known, expected {FORMS}, col("NAME")')
        inner = [] if isinstance(node, ast.Constant) else list(ast.iter_child_nodes(node))
        return [found for each in inner for found in self._columns(each)]


@dataclass(frozen=True)
class _Evaluation:
    where: Where
    data: pa.RecordBatch

    def of(self, node: ast.expr) -> Any:
        """An array of the batch's length, or a scalar."""
        name = column_name(node)
        if name is not None:
            return _decoded(self.data.column(name))
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            answer = self.of(node.values[0])
            for each in node.values[1:]:
                answer = self._call(join, node, answer, self.of(each))
            return answer
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._call(pc.invert, node, self.of(node.operand))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        try:
            return pa.scalar(self._value(node))
        except OverflowError:
            self.where.fail(node, "a number that is too large")

    def _compare(self, node: ast.Compare) -> Any:
        """`1 < a <= 3` is `1 < a and a <= 3`, as in Python."""
        sides = [node.left, *node.comparators]
        answers = [
            self._pair(left, operator, right, node)
            for left, operator, right in zip(sides[:-1], node.ops, sides[1:], strict=True)
        ]
        answer = answers[0]
        for each in answers[1:]:
            answer = pc.and_kleene(answer, each)
        return answer

    def _pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr, node: ast.Compare) -> Any:
        if isinstance(operator, ast.Is | ast.IsNot) or _is_null(right):
            if not _is_null(right) or not isinstance(operator, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
                self.where.fail(node, "only `is None` and `is not None` are known")
            wants_null = isinstance(operator, ast.Is | ast.Eq)
            return (pc.is_null if wants_null else pc.is_valid)(self.of(left))
        if isinstance(operator, ast.In | ast.NotIn):
            answer = self._contains(left, right, node)
            return pc.invert(answer) if isinstance(operator, ast.NotIn) else answer
        one, other = self.of(left), self.of(right)
        return self._call(_of_one_type(COMPARISONS[type(operator)]), node, one, other)

    def _contains(self, left: ast.expr, right: ast.expr, node: ast.Compare) -> Any:
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            column = self.of(left)
            answer: Any = pa.scalar(False)
            for each in right.elts:
                is_it = self._call(_of_one_type(pc.equal), node, column, self.of(each))
                answer = self._call(pc.or_kleene, node, answer, is_it)
            return answer
        if column_name(right) is None or not isinstance(left, ast.Constant) or not isinstance(left.value, str):
            self.where.fail(node, 'expected COLUMN in (A, B) or "TEXT" in COLUMN')
        return self._call(pc.match_substring, node, self.of(right), left.value)

    def _value(self, node: ast.expr) -> Any:
        sign = 1
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, node = -sign, node.operand
        value = CONSTANTS.get(node.id, node) if isinstance(node, ast.Name) else getattr(node, "value", node)
        if isinstance(value, bool | str) and sign == 1:
            return value
        if not isinstance(value, int | float):
            self.where.fail(node, f"that is not known, expected {FORMS}")
        return sign * value

    def _call(self, function: Callable[..., Any], node: ast.AST, *values: Any) -> Any:
        try:
            return function(*values)
        except (pa.ArrowException, TypeError, ValueError) as error:
            types = " and ".join(str(value.type) for value in values if hasattr(value, "type"))
            self.where.fail(node, f"{types} cannot be used so ({str(error).splitlines()[0]})")


def column_name(node: ast.AST) -> str | None:
    """Of a node that stands for a column: a name, or col("any name")."""
    if isinstance(node, ast.Name):
        return None if node.id in CONSTANTS else node.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "col":
        arguments = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if len(arguments) == 1 and isinstance(arguments[0], str) and not node.keywords:
            return arguments[0]
    return None


def _is_null(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and node.value is None) or (isinstance(node, ast.Name) and node.id == "null")


def _of_one_type(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Texts that are compared with moments or decimals are read as such."""

    def compared(one: Any, other: Any) -> Any:
        return compare(_read_as(one, other.type), _read_as(other, one.type))

    return compared


def _read_as(value: Any, kind: pa.DataType) -> Any:
    is_text = isinstance(value, pa.Scalar) and pa.types.is_string(value.type)
    return value.cast(kind) if is_text and (pa.types.is_temporal(kind) or pa.types.is_decimal(kind)) else value


def _decoded(column: pa.Array) -> pa.Array:
    """Arrow compares neither dictionaries nor string views."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column
