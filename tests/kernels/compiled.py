"""Compile the Triton kernels for devices that are not there, and print what the compiler says of them, a JSON each.

    python tests/kernels/compiled.py ARCHITECTURE... [--only WORDS]

For every variant: registers, bytes that are spilled, instructions on float64, loads of 16 bytes, shared memory.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ramda_theory.kernels import recurrences
from ramda_theory.kernels.recurrences import MAX_OPTIONS
from ramda_theory.kernels.rules import ADJACENT, COLUMNS, L1, MCP, NO_PSI, SCAD
from ramda_theory.kernels.triton import cut_groups, entries, groups, numbers
from ramda_theory.kernels.triton.layout import ENTRIES, members, split_shape, tile_shape, unaligned_shape
from ramda_theory.kernels.triton.shared import GROUPS
from ramda_theory.kernels.triton.table import REGISTERS, REGISTERS_ALONE, TENSORS, entry_options
from ramda_theory.kernels.triton.translate import translated

METHODS = (
    recurrences.RAMDA, recurrences.RMDA, recurrences.PROX_SGD, recurrences.PROX_ADAMW, recurrences.NORMAL_MAP,
)  # fmt: skip
TABLES = {"tiles": "*i64", "addresses": "*i64", "gradients": "*i64", "numbers": "*fp32"}
MEETING = {"scratch": "*fp32", "meetings": "*i32"}
SIZES = {
    "columns": (COLUMNS, (1, 768, 768, 1)),
    "tall columns": (COLUMNS, (1, 11008, 4096, 1)),
    "convolutions": (COLUMNS, (1, 256, 256, 9)),
    "rows": (ADJACENT, (1, 1, 768, 768)),
    "short rows": (ADJACENT, (1, 1, 768, 64)),
}
ALSO_ALONE = ("columns", "convolutions", "rows")
"""Whose tile takes shorter groups in one piece; tall ones are never, and short rows always."""

Variant = tuple[str, Any, dict[str, str], dict[str, Any], dict[str, Any]]
"""Name, kernel, types of its arguments, its constants, and options of the compiler."""


def variants() -> Iterator[Variant]:
    """All kernels with their default tiles: every method in every precision, on aligned tensors and others."""
    for method in METHODS:
        yield (
            f"{method.name} numbers",
            numbers.advance,
            {
                "addresses": "*i64", "specs": "*fp64", "groups": "*i32", "options": "*fp64", "sources": "*i64",
                "found": "*i1", "grad_scale": "*fp32", "numbers": "*fp32", "tensors": "i32",
            },
            {
                "RECURRENCE": translated(method.numbers),
                "FOUND": len(method.numbers(1.0, 1.0, (0.5,) * MAX_OPTIONS)[2]),
                "AVERAGES": method.averages, "SUMS": method.sums, "MASKED": True, "UNSCALES": True, "BLOCK": TENSORS,
            },
            {},
        )  # fmt: skip
        yield from of_shared_norms(method)
        for dtype, aligned in product((tl.float32, tl.bfloat16, tl.float16), (True, False)):
            yield from of_method(method, dtype, aligned)
    for dtype in (tl.float32, tl.bfloat16, tl.float16):
        types = {"tiles": "*i64", "gradients": "*i64", "found": "*i1"}
        yield f"look {dtype}", numbers.look, types, {"DTYPE": dtype, "BLOCK": ENTRIES}, {"num_warps": 8}


def of_shared_norms(method: Any) -> Iterator[Variant]:
    """The kernels of one number for each group that is cut across processes."""
    types = {"shared": "*fp32", "owners": "*i32", "kept": "*i64", "numbers": "*fp32", "count": "i32"}
    own = {"METRIC": method.metric, "GROUPS": GROUPS}
    yield f"{method.name} first norms", cut_groups.first_norms, types, own, {}
    for last in (False, True):
        constants = {**own, "PROLOGUE": translated(method.prologue), "LAST": last}
        yield f"{method.name} {'last' if last else 'next'} norms", cut_groups.next_norms, types, constants, {}


def of_method(method: Any, dtype: Any, aligned: bool) -> Iterator[Variant]:
    """The kernels that step weights."""
    name = f"{method.name} {dtype}{'' if aligned else ' unaligned'}"
    own = {
        "PROLOGUE": translated(method.prologue), "ARRAYS": len(method.arrays), "METRIC": method.metric,
        "AVERAGES": method.averages, "DTYPE": dtype, "ALIGNED": aligned,
    }  # fmt: skip
    changing = {"CHANGING": method.changing}
    for word, rule in {"no psi": NO_PSI, "L1": L1, "MCP": MCP, "SCAD": SCAD}.items():
        constants = {**own, **changing, "RULE": rule, "BLOCK": ENTRIES}
        yield f"{name} {word}", entries.step_entries, TABLES, constants, entry_options(rule, dtype)
    for word, (rule, sizes) in SIZES.items():
        shape = tile_shape(sizes)
        cut = {"RULE": rule, "SEVERAL": sizes[1] > 1 and sizes[3] > 1, "BM": shape.rows, "BN": shape.columns}
        warps = {"num_warps": shape.warps}
        both = {**TABLES, **MEETING}
        if members(sizes, shape) == 1 or word in ALSO_ALONE:
            constants = {**own, **changing, **cut, "MEET": False}
            alone = warps | {"maxnreg": REGISTERS_ALONE}
            yield f"{name} {word} alone", groups.step_groups, {**both, "count": "i32"}, constants, alone
        if members(sizes, shape) > 1:
            team = cut if aligned else cut | {"BM": unaligned_shape(shape).rows}
            constants = {**own, **changing, **team, "MEET": True}
            together = warps | {"launch_cooperative_grid": True, "maxnreg": REGISTERS}
            yield f"{name} {word} team", groups.step_groups, {**both, "count": "i32"}, constants, together
        cut |= {"BM": split_shape(shape).rows}
        narrow = warps | {"maxnreg": REGISTERS}
        if members(sizes, shape) > 1:
            yield f"{name} {word} measure", groups.measure_groups, both, {**own, **cut}, narrow
        yield f"{name} {word} share", cut_groups.share_moments, {**both, "count": "i32"}, {**own, **cut}, narrow
        yield f"{name} {word} write", groups.write_groups, TABLES, {**own, **changing, **cut}, warps


def figures(variant: Variant, architecture: int) -> dict[str, Any]:
    """What the compilers say of a variant."""
    name, kernel, types, constants, options = variant
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    found = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    ptx = found.asm["ptx"]
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile("wb", suffix=".cubin") as file:
        file.write(found.asm["cubin"])
        file.flush()
        command = [str(reader), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "architecture": architecture,
        "variant": name,
        "kernel": kernel.fn.__name__,
        "registers": max(map(int, re.findall(r"REG:(\d+)", said))),
        "spilled": sum(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", said))),
        "float64": len(re.findall(r"\.f64", ptx)),
        "wide_loads": len(re.findall(r"ld\.global[.\w:]*\.v4", ptx)),
        "shared": found.metadata.shared,
        "warps": options.get("num_warps", 4),
    }


def main(arguments: list[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architectures", type=int, nargs="+")
    parser.add_argument("--only", default="", help="a regular expression that a variant's name begins with")
    chosen = parser.parse_args(arguments)
    for variant in variants():
        if re.match(chosen.only, variant[0]):
            for architecture in chosen.architectures:
                print(json.dumps(figures(variant, architecture)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
