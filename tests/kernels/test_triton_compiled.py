"""The Triton kernels compile for devices that are not there: nothing is spilled, and no weight becomes float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="triton is missing")
SCRIPT = Path(__file__).with_name("compiled.py")
ROOT = SCRIPT.parents[2]
PER_TENSOR_OR_GROUP = ("advance", "look", "first_norms", "next_norms")
"""Kernels that do not go through tensors as the others do."""


def figures(only, *architectures):
    """What the compilers say, in a process in which nothing is interpreted."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, str(SCRIPT), *map(str, architectures), "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found):
    for each in found:
        print(each)
        assert each["spilled"] == 0, each
        if each["kernel"] != "advance":  # whose float64 is one number per tensor
            assert each["float64"] == 0, each
        if each["kernel"] not in PER_TENSOR_OR_GROUP and "unaligned" not in each["variant"]:
            assert each["wide_loads"] > 0 or "16" in each["variant"], each  # of half precision they may be of 8 bytes
        if "team" in each["variant"]:  # 65536 registers hold two programs, of 16 warps one
            assert each["registers"] * 32 * each["warps"] <= 65536 // (2 if each["warps"] == 8 else 1), each


def test_a_team_compiles_for_a_hopper_gpu():
    found = figures("RAMDA fp32 columns (team|measure)", 90)
    assert len(found) == 2
    check(found)


def test_groups_cut_across_processes_compile():
    found = figures("RAMDA (first norms|last norms|fp32 (columns|short rows) share)", 90)
    assert len(found) == 4
    check(found)


def test_half_precision_compiles_for_an_ampere_gpu():
    """MCP, which the compiler left alone would give too few registers."""
    found = figures("RMDA bf16 (unaligned )?MCP", 80)
    assert len(found) == 2
    check(found)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("method", ["RAMDA", "RMDA", "ProxSGD", "ProxAdamW", "NormalMapSGD", "look"])
def test_every_variant_compiles(method, architecture):
    """Nearly 150 of each method: minutes."""
    found = figures(f"{method} ", architecture)
    assert len(found) == (3 if method == "look" else 148)
    check(found)
