"""How far RAMDA in float32 drifts from float64 in a long stage, and what makes it: ``python -m benchmarks.drift``.

Independent coordinates with gradients h (w - target) + noise, h between 0.1 and 10, psi = L1.  Printed is the largest
and the median distance of W from that of a run in float64, relative to the largest weight: of the optimizer in float32
(eager and compiled), of Algorithm 1 with some of its numbers in float64, and of runs in float64 of which one thing only
is rounded to float32.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import L1

WEIGHT, LR, C, EPS = 0.01, 1e-2, 0.1, 1e-6
Gradient = Callable[[Any, int], Any]


class Problem:
    """Gradients that every run sees alike, whatever its dtype."""

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(0)
        self.curvature = (10.0 ** rng.uniform(-1, 1, size)).astype(np.float32).astype(float)
        self.target = np.where(rng.random(size) < 0.5, 0.0, rng.normal(size=size)).astype(np.float32).astype(float)
        self.start = rng.normal(size=size).astype(np.float32).astype(float)
        self.noise = (0.3 * rng.normal(size=(997, size))).astype(np.float32).astype(float)

    def gradient(self, w: np.ndarray, t: int) -> np.ndarray:
        return self.curvature * (w - self.target) + self.noise[t % 997]


def algorithm(
    problem: Problem,
    wide: str = "",
    compensated: bool = False,
    rounded: str = "",
    ulps: int = 0,
) -> Iterator[np.ndarray]:
    """W_t of Algorithm 1 in float32, but for the letters in ``wide`` (of V, U, W) that are float64.

    Parameters
    ----------
    compensated : bool
        Keep what is lost in the sum V in a second float32 (Kahan).
    rounded : {"", "gradient"}
        Round the gradient to float32 where the rest is float64.
    ulps : int
        Move the start by so many units of float32's last place.
    """
    single = np.float32
    of = {name: (float if name in wide else single) for name in "VUW"}
    w = problem.start * (1.0 + ulps * np.finfo(single).eps)
    w = w.astype(of["W"])
    anchor, alpha = w.astype(float), 0.0
    v, lost, u = np.zeros(w.size, of["V"]), np.zeros(w.size, of["V"]), np.zeros(w.size, of["U"])
    t = 0
    while True:
        t += 1
        g = problem.gradient(w.astype(float), t)
        g = g.astype(single) if rounded == "gradient" or len(wide) < 3 else g
        s = LR * math.sqrt(t)
        alpha += s
        term = (s * g).astype(of["V"])
        if compensated:
            term = term - lost
            total = v + term
            lost, v = (total - v) - term, total
        else:
            v = v + term
        u = (u + s * g * g).astype(of["U"])
        metric = np.cbrt(u.astype(float)) + EPS
        b = metric * anchor - v.astype(float) + (lost.astype(float) if compensated else 0.0)
        x = np.sign(b) * np.maximum(np.abs(b) - alpha * WEIGHT, 0.0) / metric
        w = (w + C * (x - w)).astype(of["W"])
        yield w.astype(float)


def optimizer(problem: Problem, engine: str) -> Iterator[np.ndarray]:
    """W_t of `ramda_theory.optim.RAMDA` in float32."""
    parameter = torch.nn.Parameter(torch.tensor(problem.start, dtype=torch.float32))
    own = RAMDA(
        [parameter],
        lr=LR,
        momentum=1.0 - C,
        eps=EPS,
        regularizer=L1(WEIGHT),
        on_nonfinite="ignore",
        fused=False if engine == "eager" else None,
    )
    t = 0
    while True:
        t += 1
        w = parameter.detach().double().numpy()
        parameter.grad = torch.tensor(problem.gradient(w, t), dtype=torch.float32)
        own.step()
        yield parameter.detach().double().numpy().copy()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=500)
    options = parser.parse_args()
    problem = Problem(options.size)
    runs = {
        "optimizer, eager": optimizer(problem, "eager"),
        "optimizer, compiled": optimizer(problem, "cpu"),
        "all in float32": algorithm(problem),
        "V compensated": algorithm(problem, compensated=True),
        "V in float64": algorithm(problem, "V"),
        "U in float64": algorithm(problem, "U"),
        "W in float64": algorithm(problem, "W"),
        "V and W in float64": algorithm(problem, "VW"),
        "V, U in float64": algorithm(problem, "VU"),
        "all, gradient rounded": algorithm(problem, "VUW", rounded="gradient"),
        "all, start moved by 1e-7": algorithm(problem, "VUW", ulps=1),
    }
    exact = algorithm(problem, "VUW")
    marks = [10**k for k in range(2, 10) if 10**k < options.steps] + [options.steps]
    print(f"{'largest (median) distance':<28}" + "".join(f"{f'{mark} steps':>22}" for mark in marks))
    lines = {name: f"{name:<28}" for name in runs}
    for t in range(1, options.steps + 1):
        reference = next(exact)
        for name, run in runs.items():
            w = next(run)
            if t in marks:
                distance = np.abs(w - reference) / np.abs(reference).max()
                lines[name] += f"{f'{distance.max():.1e} ({np.median(distance):.1e})':>22}"
    print("\n".join(lines.values()))


if __name__ == "__main__":
    main()
