"""What can be removed of a residual network at equal accuracy: groups of a layer against groups of a channel.

``python -m benchmarks.coupled`` trains the residual network of `ramda_theory.workloads.digits` with RAMDA and a group
LASSO, for a ladder of weights and several seeds: with groups that are the input channels of each layer
(`structured_param_groups`), and with groups of all that a channel is made of (`coupled_param_groups`).  For each seed
and wanted accuracy the largest share of parameters that `compact` removes among the runs that reach it counts.  The
weights are chosen by accuracy on the validation split, the table shows the test split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ramda_theory.files import write_json
from ramda_theory.model import compact, coupled_param_groups, structured_param_groups
from ramda_theory.optim import RAMDA, StageSchedule
from ramda_theory.regularizers import GroupLasso
from ramda_theory.tables import aligned
from ramda_theory.workloads.digits import digit_splits, residual_network

KINDS = {"groups of a layer": structured_param_groups, "groups of a channel": coupled_param_groups}
WEIGHTS = (2e-3, 5e-3, 1e-2, 2e-2, 4e-2)
WANTED = (0.97, 0.95, 0.9)
"""Accuracy on the validation split."""


def accuracy(model: torch.nn.Module, split: Any) -> float:
    """Share of right answers."""
    with torch.no_grad():
        return float((model.eval()(split.images).argmax(1) == split.digits).double().mean())


def run(kind: str, weight: float, seed: int, steps: int, width: int) -> dict[str, Any]:
    """One network trained and compacted."""
    data = digit_splits()
    train, example = data["train"], data["train"].images[:2]
    torch.manual_seed(seed)
    model, psi = residual_network(seed=seed, width=width), GroupLasso(weight)
    arguments = (example,) if kind == "groups of a channel" else ()
    optimizer = RAMDA(KINDS[kind](model, psi, *arguments), lr=1e-2)
    schedule = StageSchedule(optimizer, milestones=[steps // 2, steps * 3 // 4])
    order = np.random.default_rng(seed)
    for _ in range(steps):
        batch = torch.from_numpy(order.integers(len(train.digits), size=64))
        optimizer.zero_grad()
        cross_entropy(model(train.images[batch]), train.digits[batch]).backward()
        optimizer.step()
        schedule.step()
    optimizer.adopt_structured_point()
    small = compact(model.eval(), example, low_rank=False)
    zeros = sum(int((p == 0).sum()) for p in model.parameters()) / small.parameters[0]
    return {
        "groups": kind,
        "weight": weight,
        "seed": seed,
        "validation": accuracy(model, data["validation"]),
        "test": accuracy(model, data["test"]),
        "zeros": zeros,
        "removed": 1 - small.parameters[1] / small.parameters[0],
        "difference": small.check(data["test"].images),
    }


def best(rows: list[dict[str, Any]], kind: str, wanted: float) -> list[dict[str, Any]]:
    """For every seed the run that removes most among those of the wanted accuracy."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        reached = [r for r in rows if (r["groups"], r["seed"]) == (kind, seed) and r["validation"] >= wanted]
        found += [max(reached, key=lambda row: row["removed"])] if reached else []
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """A line per kind of groups and wanted accuracy: medians over the seeds, with the range."""
    lines = [("validation accuracy", "groups", "seeds", "removed", "zero weights", "test accuracy")]
    seeds = len({row["seed"] for row in rows})
    for wanted in WANTED:
        for kind in KINDS:
            chosen = best(rows, kind, wanted)
            cells = (_range([r[key] for r in chosen]) for key in ("removed", "zeros", "test"))
            lines.append((f"at least {wanted:.0%}", kind, f"{len(chosen)} of {seeds}", *cells))
    return aligned(lines)


def _range(values: list[float]) -> str:
    return f"{np.median(values):.1%} ({min(values):.1%}-{max(values):.1%})" if values else "-"


def main() -> None:
    """Train, print, and write the numbers if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of 64 images each")
    parser.add_argument("--width", type=int, default=16, help="channels of the stream")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        for kind in KINDS:
            for weight in WEIGHTS:
                rows.append(run(kind, weight, seed, arguments.steps, arguments.width))
                print(rows[-1], flush=True)
    print(table(rows))
    if arguments.out is not None:
        settings = {"steps": arguments.steps, "width": arguments.width, "torch": torch.__version__}
        write_json(arguments.out, {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
