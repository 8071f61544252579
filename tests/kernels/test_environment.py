"""Engines and the machine: threads, memory, Numba and its folder, and a word about compiling."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1, GroupLasso, SparseGroupLasso

ROOT = Path(__file__).parents[2]
CLASSES = (RAMDA, RMDA, ProxSGD, ProxAdamW)

STEP = """
import torch
from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import GroupLasso
torch.manual_seed(0)
parameter = torch.nn.Parameter(torch.randn(6, 5))
own = RAMDA([parameter], regularizer=GroupLasso(0.05), fused={fused})
for _ in range(3):
    parameter.grad = torch.randn(6, 5)
    own.step()
print(parameter.double().sum().item().hex())
print(own.explain_step())
"""


def step_elsewhere(before="", fused=None, **environment):
    """Standard output and errors of a process that does ``before``, then steps."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", before + STEP.format(fused=fused)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.stdout.splitlines(), done.stderr


@pytest.fixture(scope="module")
def eager():
    """The sum of the weights after eager steps."""
    lines, _ = step_elsewhere(fused=False)
    return lines[0]


def test_without_numba_the_eager_engine_steps(eager):
    without = "import sys; sys.modules['numba'] = None\n"
    lines, errors = step_elsewhere(without)
    assert lines[0] == eager
    assert "Warning" not in errors
    assert "eager" in lines[-1] and "numba" in lines[-1]
    _, errors = step_elsewhere(without, fused=True)
    assert "RuntimeError: fused=True cannot step" in errors and "numba" in errors


def test_with_numba_that_may_not_compile_the_eager_engine_steps(eager):
    lines, errors = step_elsewhere(NUMBA_DISABLE_JIT="1")
    assert lines[0] == eager
    assert "eager" in "".join(lines) and not errors


def test_without_a_folder_to_compile_into_the_eager_engine_steps_with_a_warning(eager):
    pytest.importorskip("numba")
    lines, errors = step_elsewhere("from numba.core import caching; caching.CacheImpl._locator_classes = []\n")
    assert lines[0] == eager
    assert "RuntimeWarning" in errors and "NUMBA_CACHE_DIR" in errors


def test_the_first_compilation_says_so_once_and_is_kept(tmp_path):
    pytest.importorskip("numba")
    lines, errors = step_elsewhere(NUMBA_CACHE_DIR=str(tmp_path))
    assert errors.count("compiling") == 1
    again, errors = step_elsewhere(NUMBA_CACHE_DIR=str(tmp_path))
    assert "compiling" not in errors
    assert again == lines


@pytest.mark.parametrize("cls", CLASSES)
def test_the_result_does_not_depend_on_threads(cls):
    def result(threads):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        kinds = [
            ((600, 500), GroupLasso(0.3)),
            ((500, 600), GroupLasso(0.3, dims=(1,))),
            ((80, 60, 3, 3), GroupLasso(0.3, dims=(0, 2, 3))),
            ((6, 5000, 7), SparseGroupLasso(0.3, 0.5, dims=(1,))),
            ((300_001,), None),
            ((200_003,), L1(0.3)),
        ]
        groups = [{"params": [torch.nn.Parameter(torch.randn(shape))], "regularizer": psi} for shape, psi in kinds]
        own = cls(groups)
        for _ in range(3):
            for group in groups:
                for parameter in group["params"]:
                    parameter.grad = torch.randn_like(parameter) * torch.randn_like(parameter).exp()
            own.step()
        return [parameter.detach() for group in groups for parameter in group["params"]]

    threads = torch.get_num_threads()
    try:
        one, *others = (result(count) for count in (1, 2, 3))
    finally:
        torch.set_num_threads(threads)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_compiled_step_takes_next_to_no_memory():
    """Of the largest tensor, less than a byte per weight at the peak, in a step that needs several passes."""
    pytest.importorskip("numba")
    parameter = torch.nn.Parameter(torch.randn(1024, 4096))
    parameter.grad = torch.randn(1024, 4096)
    own = RAMDA([parameter], regularizer=GroupLasso(0.02), fused=True, on_nonfinite="ignore")
    own.step()
    parameter.grad.mul_(3.0)
    assert peak(own.step) < parameter.numel()


def peak(function):
    """Bytes of memory that ``function`` takes at its peak beyond what was taken before."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts again
    except OSError:
        pytest.skip("this system does not tell the peak of memory")
    before = memory("VmRSS")
    function()
    return memory("VmHWM") - before


def memory(key):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key))
