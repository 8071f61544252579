"""The step time of every optimizer with every regularizer as a ratio to torch's AdamW: ``python -m benchmarks.steps``.

Three parts, each in its own words below: `matrices`, `large` and `small`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleaved import Runner, Times, compare
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    Reshaped,
    SparseGroupLasso,
)

OPTIMIZERS: dict[str, Callable[..., Any]] = {"RAMDA": RAMDA, "RMDA": RMDA, "ProxSGD": ProxSGD, "ProxAdamW": ProxAdamW}
LR = {"RAMDA": 1e-2, "RMDA": 1e-2, "ProxSGD": 1e-2, "ProxAdamW": 1e-3}

PSI: dict[str, Any] = {
    "None": None,
    "L1": L1(1.0),
    "ElasticNet": ElasticNet(1.0, 0.1),
    "MCP": MCP(1.0, 10.0),
    "SCAD": SCAD(1.0, 10.0),
    "GroupLasso": GroupLasso(1.0),
    "SparseGroupLasso": SparseGroupLasso(1.0, 0.5),
}
POOL = 4
WIDTH = 768


@dataclass
class Case:
    """One row: what is stepped, and the largest ratio it may have."""

    part: str
    optimizer: str
    psi_name: str
    psi: Any
    at_most: float | None
    variant: str = ""
    shape: tuple[int, ...] = ()
    tensors: int = 6
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)


def matrices(quick: bool) -> Iterator[Case]:
    """Six weights of 768 x 768: four optimizers with every regularizer, then RAMDA with GroupLasso in other ways.

    GroupMCP, whose groups are solved one after another in float64, and the nuclear norm, whose solver iterates, have
    no aim.
    """
    for optimizer in OPTIMIZERS:
        for name, psi in PSI.items():
            yield Case("matrices", optimizer, name, psi, 3.5)
        if not quick:
            yield Case("matrices", optimizer, "GroupMCP", GroupMCP(1.0, 10.0), None)
            yield Case("matrices", optimizer, "NuclearNorm", NuclearNorm(1.0), None, "one of 256 x 256", (256, 256), 1)

    def variant(name: str, psi: Any = PSI["GroupLasso"], at_most: float = 3.5, **changed: Any) -> Case:
        return Case("matrices", "RAMDA", "GroupLasso", psi, at_most, name, **changed)

    yield variant("rows", GroupLasso(1.0, dims=(1,)))
    yield variant("heads, 12 of 64 rows", Reshaped(GroupLasso(1.0, dims=(1, 2)), (12, 64, WIDTH)))
    yield variant("skip", options={"on_nonfinite": "skip"})
    yield variant("ignore", options={"on_nonfinite": "ignore"})
    yield variant("maximize", options={"maximize": True})
    yield variant("bfloat16", dtype=torch.bfloat16, at_most=8.0)
    yield variant("float16", dtype=torch.float16, at_most=8.0)
    yield variant("convolution 256 x 256 x 3 x 3", GroupLasso(1.0, dims=(0, 2, 3)), shape=(256, 256, 3, 3))


def large() -> Iterator[Case]:
    """Ten weights of 1024 x 1024."""
    yield Case("large", "RAMDA", "GroupLasso", PSI["GroupLasso"], 2.8, shape=(1024, 1024), tensors=10)


def half_zero(psi: Any, mean: Tensor) -> Any:
    """``psi`` with the weight for which half of its pieces are zero where the mean gradient is stationary.

    A piece stays zero for good where the prox of the mean gradient is zero; the weight is found by bisection, for the
    nuclear norm it is the median singular value.
    """
    if psi is None:
        return None
    if isinstance(psi, NuclearNorm):
        return NuclearNorm(float(torch.linalg.svdvals(mean).median()))
    grouped = getattr(psi, "grouped", psi)

    def weighted(weight: float) -> Any:
        changed = dataclasses.replace(grouped, weight=weight)
        return changed if grouped is psi else dataclasses.replace(psi, grouped=changed)

    def zeros(weight: float) -> float:
        return zero_share(weighted(weight), weighted(weight).prox(mean, 1.0))

    low, high = 0.0, 2.0 * float(mean.abs().max())
    for _ in range(25):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if zeros(middle) < 0.5 else (low, middle)
    return weighted(high)


def zero_share(psi: Any, w: Tensor) -> float:
    """The share of groups, or of entries, that are exactly zero."""
    sizes = psi.group_norms(w) if hasattr(psi, "group_norms") else w
    return float((sizes == 0).double().mean())


@lru_cache(maxsize=2)
def tensors(shape: tuple[int, ...], count: int) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Start and a pool of gradients of ``count`` weights.

    Gradients have a mean that is normal times log-normal(0.5) per input and log-normal(1) per entry, and normal noise
    of half its size.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    per_input = [length if axis == 1 else 1 for axis, length in enumerate(shape)]
    mean = [normal(*shape) * (0.5 * normal(*per_input)).exp() * normal(*shape).exp() for _ in range(count)]
    pool = [[m + 0.5 * m.std() * normal(*shape) for m in mean] for _ in range(POOL)]
    return [0.003 * normal(*shape) for _ in mean], pool


def engines(optimizer: Any) -> str:
    """Which engines step the parameters, where the optimizer can tell."""
    if not hasattr(optimizer, "explain_step"):
        return ""
    return "+".join(sorted({engine for _, engine, _ in optimizer.explain_step().rows}))


def measured(case: Case, repeats: int, seconds: float) -> dict[str, Any]:
    """The row of a case."""
    start, pool = tensors(case.shape or (WIDTH, WIDTH), case.tensors)
    psi = half_zero(case.psi, sum(gradients[0] for gradients in pool) / POOL)
    start = [w.to(case.dtype) for w in start]
    pool = [[gradient.to(case.dtype) for gradient in gradients] for gradients in pool]
    runner = Runner(
        lambda params: OPTIMIZERS[case.optimizer](params, lr=LR[case.optimizer], regularizer=psi, **case.options),
        start, pool, fresh=False,
    )  # fmt: skip
    baseline = Runner(lambda params: torch.optim.AdamW(params, fused=True), start, pool, fresh=False)
    times = compare(runner, baseline, repeats, warm_up=20, seconds=seconds)
    zero = None
    if psi is not None and not isinstance(psi, NuclearNorm):
        with runner.optimizer.structured_point():
            zero = zero_share(psi, runner.params[0].detach())
    return row(case.part, case.optimizer, case.psi_name, case.variant, times, case.at_most, zero, runner.optimizer)


def small(repeats: int) -> Iterator[dict[str, Any]]:
    """An MLP 64-256-256-10, one group dict per layer's weight and one for biases; new gradient tensors every step.

    AdamW has the same group dicts; without an aim, it has all tensors in one.
    """
    torch.manual_seed(0)
    shapes = [(256, 64), (256,), (256, 256), (256,), (10, 256), (10,)]
    start = [torch.randn(shape) / 16 for shape in shapes]
    pool = [[torch.randn(shape) for shape in shapes] for _ in range(POOL)]
    psi = half_zero(GroupLasso(1.0), sum(gradients[2] for gradients in pool) / POOL)

    def layers(params: list[Tensor], options: dict[str, Any]) -> list[dict[str, Any]]:
        return [*({"params": [w], **options} for w in params[::2]), {"params": params[1::2]}]

    def adamw(params: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(layers(params, {}), foreach=True)

    def adamw_together(params: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, foreach=True)

    for variant, at_most, make in (("same groups", 0.8, adamw), ("one group", None, adamw_together)):
        runner = Runner(
            lambda params: RAMDA(layers(params, {"regularizer": psi}), lr=LR["RAMDA"]), start, pool, fresh=True
        )
        times = compare(runner, Runner(make, start, pool, fresh=True), 3 * repeats, warm_up=50, seconds=8.0)
        variant = f"MLP, AdamW foreach, {variant}"
        yield row("small", "RAMDA", "GroupLasso", variant, times, at_most, None, runner.optimizer)


def row(
    part: str, optimizer: str, psi: str, variant: str, times: Times, at_most: float | None, zero: float | None, own: Any
) -> dict[str, Any]:
    """One line of the table as data."""
    return {
        "part": part,
        "optimizer": optimizer,
        "psi": psi,
        "variant": variant,
        "engine": engines(own),
        **times._asdict(),
        "zero_share": zero,
        "at_most": at_most,
        "verdict": "" if at_most is None else "met" if times.ratio <= at_most else "missed",
    }


HEADER = (
    f"{'optimizer':<10}{'psi':<18}{'variant':<32}{'engine':<8}{'ms':>9}{'AdamW':>7}{'ratio':>8}"
    f"{'(range)':>16}{'fastest':>9}{'zero':>6}{'at most':>9}  verdict"
)


def line(row: dict[str, Any]) -> str:
    """One line of the table as text."""
    spread = f"({row['low']:.2f}-{row['high']:.2f})"
    zero = "" if row["zero_share"] is None else f"{row['zero_share']:.2f}"
    at_most = "" if row["at_most"] is None else f"{row['at_most']:.1f}"
    return (
        f"{row['optimizer']:<10}{row['psi']:<18}{row['variant']:<32}{row['engine']:<8}{row['ms']:>9.2f}"
        f"{row['baseline_ms']:>7.2f}{row['ratio']:>8.2f}{spread:>16}{row['fastest']:>9.2f}{zero:>6}"
        f"{at_most:>9}  {row['verdict']}"
    ).rstrip()


def processor() -> str:
    """The model of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((each.split(":")[1].strip() for each in lines if each.startswith("model name")), platform.processor())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table row by row; write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats, and only rows with an aim")
    parser.add_argument("--repeats", type=int, help="turns per row (default: 5, quick: 2)")
    parser.add_argument("--only", default="", help="rows whose 'part optimizer psi variant' contains this")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    repeats = options.repeats or (2 if options.quick else 5)
    seconds = 1.0 if options.quick else 3.0
    if options.out and not options.out.parent.is_dir():
        parser.error(f"--out: no folder {options.out.parent}")

    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n{HEADER}", flush=True)
    rows: list[dict[str, Any]] = []

    def add(result: dict[str, Any]) -> None:
        rows.append(result)
        print(line(result), flush=True)

    for case in [*matrices(options.quick), *large()]:
        if options.only in f"{case.part} {case.optimizer} {case.psi_name} {case.variant}":
            add(measured(case, repeats, seconds))
    if options.only in "small RAMDA GroupLasso MLP":
        for result in small(repeats):
            add(result)
    judged = [row for row in rows if row["at_most"] is not None]
    print(f"{sum(row['verdict'] == 'met' for row in judged)} of {len(judged)} met", flush=True)
    if options.out:
        machine = {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        options.out.write_text(json.dumps({"machine": machine, "quick": options.quick, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
