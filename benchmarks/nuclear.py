"""The nuclear norm: ADMM and ALS beside the accelerated solver, and steps of optimizers beside SVDs of the matrices.

``python -m benchmarks.nuclear``: two parts, each in its own words below, `solvers` and `perceptron`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.steps import processor
from ramda_theory import kernels
from ramda_theory.files import write_json
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import NuclearNorm
from ramda_theory.subproblem import Subproblem, solve
from ramda_theory.tables import aligned

IMAGES = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
"""Where Debian's package dataset-fashion-mnist puts Fashion-MNIST."""
SEQUENCES = (((96, 96), 60.0), ((96, 96), 1e3), ((96, 96), 6e4), ((192, 96), 1e3), ((256, 256), 1e3))
"""Sizes and about max P / min P of the sequences of subproblems."""
WIDTHS = (784, 512, 256, 128, 64, 32, 16, 10)
"""The paper's perceptron (Table 8)."""
SETTINGS: dict[str, tuple[Callable[..., Any], dict[str, Any], float, float | None]] = {
    "RAMDA": (RAMDA, {"lr": 1e-2, "momentum": 0.9}, 1e-3, 0.8),
    "RMDA": (RMDA, {"lr": 1e-1, "momentum": 0.9}, 5e-3, 0.1),
    "ProxSGD": (ProxSGD, {"lr": 1e-1, "momentum": 0.9}, 5e-3, 0.1),
    "ProxAdamW": (ProxAdamW, {"lr": 1e-3}, 3.5e-3, None),
}
"""The authors' settings of Table 8: lr and weight of the nuclear norm; and the ratio that a step may have at most."""

# -- the solvers ------------------------------------------------------------------------------------------------------


def sequence(shape: tuple[int, int], spread: float, steps: int) -> Iterator[Subproblem]:
    """RAMDA's subproblems at the end of 200 steps of noisy gradients; about a third of the singular values are kept.

    The size of the gradients differs from entry to entry so that max P / min P is about ``spread``.
    """
    rng = np.random.default_rng(0)
    size = np.exp(1.5 * math.log(spread) * (rng.random(shape) - 0.5))
    mean = 0.3 * rng.standard_normal((shape[0], 5)) @ rng.standard_normal((5, shape[1])) / 2.0
    anchor = rng.standard_normal(shape) / math.sqrt(shape[1])
    grad_sum, grad_sq_sum, alpha, psi = np.zeros(shape), np.zeros(shape), 0.0, NuclearNorm(0.0)
    for t in range(1, 200 + steps):
        s = 1e-2 * math.sqrt(t)
        gradient = size * (mean + rng.standard_normal(shape))
        alpha, grad_sum, grad_sq_sum = alpha + s, grad_sum + s * gradient, grad_sq_sum + s * gradient**2
        if t < 200:
            continue
        metric = np.cbrt(grad_sq_sum) + 1e-6
        if t == 200:
            b = metric * anchor - grad_sum
            psi = NuclearNorm(float(np.linalg.svd(b, compute_uv=False)[min(shape) // 3]) / alpha)
        yield Subproblem(anchor, grad_sum, metric, alpha, psi)


def solvers(repeats: int) -> Iterator[dict[str, Any]]:
    """Sequences of subproblems solved with warm starts by ADMM, ALS and the accelerated solver, in turn.

    All begin at their last solution, ADMM also with its dual, and stop at a residual of (7) of 1e-4 alpha lambda.
    Solutions are judged afresh, outside the clock; ratios are those of the medians over all steps but the first two,
    and the verdict is on the lower one.
    """
    for shape, spread in SEQUENCES:
        last: dict[str, Any] = {"admm": None, "als": None, "accelerated": None}
        times: dict[str, list[float]] = {name: [] for name in last}
        counts: dict[str, list[int]] = {name: [] for name in last}
        ranks: dict[str, int] = {}
        worst, spread_found = 0.0, math.nan
        for step, problem in enumerate(sequence(shape, spread, repeats + 2)):
            spread_found = float(problem.metric.max() / problem.metric.min())
            tolerance = 1e-4 * problem.weight_sum * problem.regularizer.weight
            for name in last if step % 2 else reversed(list(last)):
                clock = time.perf_counter()
                solution = solve(problem, name, start=last[name], tolerance=tolerance, max_iter=20_000)
                seconds = time.perf_counter() - clock
                last[name], ranks[name] = solution, solution.structure.count
                worst = max(worst, solution.residual / tolerance)
                if step > 1:
                    times[name].append(1e3 * seconds)
                    counts[name].append(solution.iterations)
        ms = {name: statistics.median(each) for name, each in times.items()}
        at_most = 0.35 if spread_found >= 900 else 0.6
        ratios = {name: ms[name] / ms["accelerated"] for name in ("admm", "als")}
        yield {
            "part": "solvers",
            "matrix": f"{shape[0]} x {shape[1]}",
            "spread": spread_found,
            "iterations": statistics.median(counts["admm"]),
            "accelerated_iterations": statistics.median(counts["accelerated"]),
            "ms": ms["admm"],
            "als_iterations": statistics.median(counts["als"]),
            "als_ms": ms["als"],
            "accelerated_ms": ms["accelerated"],
            "ratio": ratios["admm"],
            "als_ratio": ratios["als"],
            "rank": ranks["admm"],
            "als_rank": ranks["als"],
            "accelerated_rank": ranks["accelerated"],
            "worst_residual": worst,
            "at_most": at_most,
            "verdict": "met" if min(ratios.values()) <= at_most else "missed",
        }


# -- the perceptron ---------------------------------------------------------------------------------------------------


def images() -> tuple[str, Tensor, Tensor]:
    """Fashion-MNIST, normalised as the authors do, or where it is not installed ten prototypes in noise."""
    if IMAGES.is_file():
        pixels = np.frombuffer(gzip.decompress(IMAGES.read_bytes()), np.uint8, offset=16).reshape(-1, WIDTHS[0])
        labels = gzip.decompress(Path(str(IMAGES).replace("images-idx3", "labels-idx1")).read_bytes())
        x = (torch.tensor(pixels).float() / 255.0 - 0.1307) / 0.3081
        return "Fashion-MNIST", x, torch.tensor(np.frombuffer(labels, np.uint8, offset=8)).long()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (20_000,), generator=generator)
    prototypes = torch.randn(10, WIDTHS[0], generator=generator)
    return "prototypes", prototypes[labels] + torch.randn(20_000, WIDTHS[0], generator=generator), labels


class Training:
    """The perceptron trained by one optimizer, a nuclear norm on every weight matrix; the clock sees the matrices only.

    Parameters
    ----------
    name : str
        A key of `SETTINGS`.
    x, y : Tensor
        Data.
    """

    def __init__(self, name: str, x: Tensor, y: Tensor) -> None:
        torch.manual_seed(0)
        layers = [layer for pair in itertools.pairwise(WIDTHS) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.model, self._data = nn.Sequential(*layers[:-1]), (x, y)
        self.matrices = [p for p in self.model.parameters() if p.ndim == 2]
        cls, options, weight, _ = SETTINGS[name]
        self.optimizer = cls(self.matrices, regularizer=NuclearNorm(weight), **options)
        self._others = cls([p for p in self.model.parameters() if p.ndim == 1], **options)

    def step(self) -> float:
        """One step; the seconds that the matrices took."""
        x, y = self._data
        batch = torch.randint(0, len(y), (128,))
        self.model.zero_grad()
        nn.functional.cross_entropy(self.model(x[batch]), y[batch]).backward()
        with kernels.using("eager"):
            self._others.step()
        clock = time.perf_counter()
        self.optimizer.step()
        return time.perf_counter() - clock

    def decompose(self) -> float:
        """Seconds of one float64 SVD of every matrix."""
        matrices = [p.detach().double() for p in self.matrices]
        clock = time.perf_counter()
        for matrix in matrices:
            torch.linalg.svd(matrix, full_matrices=False)
        return time.perf_counter() - clock

    def ranks(self) -> list[int]:
        """Ranks of all What."""
        with self.optimizer.structured_point():
            return [NuclearNorm(1.0).structure(p.detach()).count for p in self.matrices]

    def worst_residual(self) -> tuple[float, int]:
        """In one more step: the largest residual of (7) as a share of its tolerance, and the most iterations."""
        self.optimizer.record_inexactness = True
        self.step()
        records = list(self.optimizer.inexactness.values())
        self.optimizer.record_inexactness = False
        shares = [record.residual / record.tolerance for record in records]
        return max(shares, default=0.0), max((record.iterations for record in records), default=0)


def perceptron(
    repeats: int, milestones: Sequence[int], optimizers: Sequence[str] = tuple(SETTINGS)
) -> Iterator[dict[str, Any]]:
    """A step on the matrices of the paper's perceptron, as a ratio to one float64 SVD of each.

    After every number of steps in ``milestones``: the first, while ranks are high, and one when they have settled.
    Steps and SVDs take turns; the ratio is the median of those of each turn, beside the lowest and the highest.
    """
    data, x, y = images()
    for name in optimizers:
        at_most = SETTINGS[name][3]
        training, done = Training(name, x, y), 0
        first = training.step()
        for milestone in milestones:
            while done < milestone:
                training.step()
                done += 1
            pairs = [(training.step(), training.decompose()) for _ in range(repeats)]
            done += repeats
            seconds, svd = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratios = sorted(step / decomposition for step, decomposition in pairs)
            ratio = statistics.median(ratios)
            worst: float | None = None
            iterations = 0
            if name in ("RAMDA", "ProxAdamW"):
                worst, iterations = training.worst_residual()
                done += 1
            verdict = "" if at_most is None else "met" if ratio <= at_most else "missed"
            yield {
                "part": "perceptron",
                "optimizer": name,
                "data": data,
                "steps": done,
                "first_step_ms": 1e3 * first,
                "ms": 1e3 * seconds,
                "svd_ms": 1e3 * svd,
                "ratio": ratio,
                "lowest": ratios[0],
                "highest": ratios[-1],
                "ranks": training.ranks(),
                "iterations": iterations,
                "worst_residual": worst,
                "at_most": at_most,
                "verdict": verdict,
            }


# -- the command ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Both parts as text."""
    lines: list[Sequence[Any]] = [
        (
            "matrix",
            "max/min P",
            "iterations",
            "als",
            "accelerated",
            "ms",
            "als",
            "accelerated",
            "ratio",
            "als",
            "ranks",
            "at most",
            "verdict",
        )
    ]
    steps: list[Sequence[Any]] = [
        ("optimizer", "after steps", "first ms", "ms", "SVDs ms", "ratio", "iterations", "residual/eps_t", "at most",
         "verdict", "ranks of What")
    ]  # fmt: skip
    for row in rows:
        at_most = "-" if row["at_most"] is None else f"{row['at_most']:g}"
        ratio, ms = f"{row['ratio']:.2f}", f"{row['ms']:.1f}"
        if row["part"] == "solvers":
            counts = [f"{row[key]:g}" for key in ("iterations", "als_iterations", "accelerated_iterations")]
            ranks = ", ".join(str(row[key]) for key in ("rank", "als_rank", "accelerated_rank"))
            times = ms, f"{row['als_ms']:.1f}", f"{row['accelerated_ms']:.1f}"
            others = *times, ratio, f"{row['als_ratio']:.2f}", ranks, at_most, row["verdict"]
            lines.append((row["matrix"], f"{row['spread']:.0e}", *counts, *others))
        else:
            spread = f"{ratio} ({row['lowest']:.2f}-{row['highest']:.2f})"
            times = f"{row['first_step_ms']:.0f}", ms, f"{row['svd_ms']:.1f}", spread
            worst = row["worst_residual"]
            solved = str(row["iterations"]), "-" if worst is None else f"{worst:.2f}"
            ranks = " ".join(map(str, row["ranks"]))
            steps.append((row["optimizer"], str(row["steps"]), *times, *solved, at_most, row["verdict"] or "-", ranks))
    return "\n\n".join(aligned(each) for each in (lines, steps) if len(each) > 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nuclear", description=__doc__)
    parser.add_argument("--only", choices=("solvers", "perceptron"), help="one of the two parts")
    parser.add_argument("--repeats", type=int, default=15, help="turns per row")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[20, 300, 600], help="steps before the perceptron is timed"
    )
    parser.add_argument("--optimizers", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS), help="of these")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.out and not options.out.parent.is_dir():
        parser.error(f"--out: no folder {options.out.parent}")
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    if options.only != "perceptron":
        rows += solvers(options.repeats)
    if options.only != "solvers":
        rows += perceptron(options.repeats, options.steps, options.optimizers)
    machine = {
        "processor": processor(),
        "threads": options.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(f"{machine['processor']}, {options.threads} threads, torch {torch.__version__}\n\n{table(rows)}")
    if options.out:
        write_json(options.out, {"machine": machine, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
