"""The recurrences as Triton functions: their own text, so that no method is written twice."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

from ramda_theory.kernels.triton.arithmetic import INTERPRETED, power


class _Plain(ast.NodeTransformer):
    """Without annotations, which name Python types; a power is a call, since Triton's values have no ``**``."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Pow):
            return ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])
        return node


@cache
def translated(function: Callable[..., Any]) -> Any:
    """A function of plain arithmetic as one that Triton kernels call.

    Parameters
    ----------
    function : callable
        Of `ramda_theory.kernels.recurrences`: assignments, arithmetic, calls of its arguments.

    Returns
    -------
    triton.JITFunction
    """
    tree = _Plain().visit(ast.parse(textwrap.dedent(inspect.getsource(function))))
    text = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    name = f"<{function.__module__}.{function.__name__} in Triton>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # where Triton finds the text
    namespace: dict[str, Any] = {"tl": tl, "power": power, "__name__": __name__}
    exec(compile(text, name, "exec"), namespace)
    plain = namespace[function.__name__]
    return InterpretedFunction(plain) if INTERPRETED.value else triton.jit(plain)
