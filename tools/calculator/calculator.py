"""Computes the arithmetic expression that is the last word. Parses; never evaluates anything as Python."""

import ast
import json
import math
import operator
import sys
from collections.abc import Callable
from typing import Any

Number = int | float
MAX_BITS = 8192
"""Size of the largest whole number; it bounds time and memory as well. Below Python's 4300 digits."""


class Wrong(Exception):
    """The expression cannot be computed; the message says why."""


def power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent * (base.bit_length() - 1) > MAX_BITS:
        raise Wrong("a power has too many digits")
    return base**exponent


def rounded(value: Number, digits: int = 0) -> Number:
    if abs(digits) > 1000:
        raise Wrong("round takes up to 1000 digits here")
    return round(value, digits) if digits else round(value)


def small(function: Callable[..., int], largest: int) -> Callable[..., int]:
    def bounded(*values: int) -> int:
        if any(abs(value) > largest for value in values):
            raise Wrong(f"{function.__name__} takes numbers up to {largest} here")
        return function(*values)

    return bounded


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
SAFE: tuple[Callable[..., Any], ...] = (
    *(math.sqrt, math.isqrt, math.exp, math.log, math.log2, math.log10, math.hypot),
    *(math.sin, math.cos, math.tan, math.asin, math.acos, math.atan, math.atan2, math.sinh, math.cosh, math.tanh),
    *(math.degrees, math.radians, math.floor, math.ceil, math.trunc, math.gcd, math.lcm),
)
"""Functions whose cost is bounded by the size of their arguments."""
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{function.__name__: function for function in SAFE},
    "factorial": small(math.factorial, 900),
    "comb": small(math.comb, 8000),
    "perm": small(math.perm, 900),
    "abs": abs,
    "round": rounded,
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "sum": lambda *values: sum(values),
    "mean": lambda *values: sum(values) / len(values),
    "pow": power,
    "ln": math.log,
}


def compute(node: ast.AST) -> Any:
    value = _compute(node)
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise Wrong("a whole number on the way has too many digits")
    if isinstance(value, complex):
        raise Wrong("the result is not a real number")
    return value


def _compute(node: ast.AST) -> Any:
    match node:
        case ast.Expression(body=body):
            return compute(body)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](compute(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](compute(left), compute(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
            return OPERATORS[type(op)](compute(left), compute(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(compute, arguments))
        case ast.Call(func=ast.Name(id=name)) | ast.Name(id=name):
            raise Wrong(f"there is no {name!r}; there are {', '.join([*CONSTANTS, *FUNCTIONS])}")
    raise Wrong(f"{ast.unparse(node)[:60]!r} is no arithmetic")


def main() -> None:
    expression = sys.argv[-1].strip().replace("^", "**")
    sys.setrecursionlimit(5000)  # a sum of a thousand terms is nested a thousand deep
    try:
        value = compute(ast.parse(expression, mode="eval"))
        if isinstance(value, float) and not math.isfinite(value):
            raise Wrong("the result is not finite")
    except SyntaxError as exc:
        sys.exit(f"This is no expression: {exc.msg} at character {exc.offset}.")
    except Wrong as exc:
        sys.exit(f"This cannot be computed: {exc}.")
    except (ArithmeticError, ValueError, TypeError) as exc:
        sys.exit(f"This cannot be computed: {exc}.")
    except (RecursionError, MemoryError):
        sys.exit("This cannot be computed: it is nested too deeply.")
    exact = isinstance(value, int)
    print(json.dumps({"result": value, "text": str(value), "exact": exact}))


main()
