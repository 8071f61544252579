"""Time of a step of RAMDA with the group LASSO, and of the nuclear norm's subproblem, beside their opponents.

``python -m paper_checks.time_efficiency [--quick] [--sets NAME ...] [--threads N] [--out DIR]``

About half of the groups are zero in What.  After 20 steps of warm-up the methods take turns in each of five repeats; a
ratio is that of two medians of one repeat, and the table shows the median over the repeats and their range.  Beside a
time stands how well its step solves the subproblem: the largest min ||s_g|| over the groups, in weight_sum lam_g.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paper_checks import nuclear_times, step_times
from paper_checks.opponents import PARAMETER_SETS
from ramda_theory.files import write_json
from ramda_theory.kernels.cpu.launch import compiled_module
from ramda_theory.tables import aligned

SMALL, NUCLEAR = "MLP 64-256-256-10", "nuclear norm"
BYTES_PER_WEIGHT = {"AdamW fused": 28, "RAMDA": 32}
"""What a step must read and write at least: 4 and 3 arrays, 5 and 3 arrays."""


def measure(name: str, repeats: int, steps: int, device: str) -> list[dict[str, Any]]:
    """Every method on one parameter set: a row of the table each."""
    steps = 10 * steps if name == SMALL else steps
    problem = step_times.Problem(PARAMETER_SETS[name], step_times.WARM_UP + repeats * steps // 2, device)
    methods = step_times.methods(problem, steps)
    times = step_times.times(methods, repeats)
    rows = []
    for method, milliseconds in times.items():
        quality = step_times.quality(method, methods[method])
        rows.append(
            {
                "set": name,
                "weights": sum(tensor.numel() for tensor in problem.start),
                "device": device,
                "method": method,
                "milliseconds": statistics.median(milliseconds),
                "to": {other: ratios(milliseconds, times[other]) for other in times},
                "state_bytes_per_weight": state_bytes(methods[method]),
                "residual": quality and quality.residual,
                "iterations": quality and quality.iterations,
                "zero_groups": quality and quality.zero,
            }
        )
    if device != "cpu":
        rows.append(floor(name, rows[0]["weights"], device))
    return rows


def ratios(times: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Median and range of the ratios within the repeats."""
    each = [a / b for a, b in zip(times, others, strict=True)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def state_bytes(method: step_times.Method) -> float | None:
    """Bytes of optimizer state per weight."""
    state = getattr(method.optimizer, "state", None)
    if state is None:
        return None
    arrays = [t for kept in state.values() for t in kept.values() if torch.is_tensor(t)]
    return sum(t.numel() * t.element_size() for t in arrays) / sum(p.numel() for p in method.params)


def floor(name: str, weights: int, device: str) -> dict[str, Any]:
    """The time in which the device moves what RAMDA must read and write, at the rate at which it copies."""
    source = torch.empty(2**26, device=device)
    target = torch.empty_like(source)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    target.copy_(source)
    begin.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    per_byte = begin.elapsed_time(end) / (20 * 8 * source.numel())
    milliseconds = BYTES_PER_WEIGHT["RAMDA"] * weights * per_byte
    return {"set": name, "device": device, "method": "memory traffic of RAMDA", "milliseconds": milliseconds}


# -- what is asked for ------------------------------------------------------------------------------------------------


def targets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every promise about the step on the CPU, what was measured, and whether it is kept."""
    result = []

    def promise(row: dict[str, Any], text: str, measured: float, bound: float) -> None:
        result.append({"set": row["set"], "promise": text, "measured": measured, "bound": bound})

    for row in rows:
        if row["device"] != "cpu" or row["method"] != "RAMDA":
            continue
        to = {other: ratio["median"] for other, ratio in row["to"].items()}
        if row["set"] == SMALL:
            promise(row, "of AdamW foreach", to["AdamW foreach"], 0.9)
        else:
            promise(row, "of AdamW fused", to["AdamW fused"], 3.0)
            promise(row, "of AdamW foreach", to["AdamW foreach"], 1.0)
            promise(row, "of Algorithm 2", to["Algorithm 2"], 1 / 20)
        promise(row, "of MADGRAD", to["MADGRAD"], 1.0)
        promise(row, "residual", row["residual"], 1e-5)
        promise(row, "bytes of state per weight", row["state_bytes_per_weight"], 12.5)
    for each in result:
        each["kept"] = each["measured"] <= each["bound"]
    return result


def nuclear_targets(rows: Sequence[nuclear_times.Row]) -> list[dict[str, Any]]:
    """The promise about the nuclear norm."""
    times = {(row.problem, row.method): row.milliseconds for row in rows}
    result = []
    for name in dict.fromkeys(row.problem for row in rows):
        measured = times[name, "accelerated"] / times[name, "plain, SVD"]
        promise = {"set": name, "promise": "of plain proximal gradient", "measured": measured, "bound": 1 / 3}
        result.append({**promise, "kept": measured <= 1 / 3})
    return result


# -- tables -----------------------------------------------------------------------------------------------------------


def step_table(rows: Sequence[dict[str, Any]]) -> str:
    """Times and ratios with their ranges, residuals, iterations."""
    head = ("parameters", "method", "ms", "/ AdamW fused", "/ AdamW foreach", "residual", "iterations", "zero groups")
    table = [head]
    for row in rows:
        to = row.get("to", {})
        cells = [
            f"{to[other]['median']:.2f} ({to[other]['least']:.2f}-{to[other]['most']:.2f})" if other in to else ""
            for other in ("AdamW fused", "AdamW foreach")
        ]
        residual, zero = row.get("residual"), row.get("zero_groups")
        quality = ("" if residual is None else f"{residual:.1e}", row.get("iterations") or "")
        name = f"{row['set']}{'' if row['device'] == 'cpu' else ', ' + row['device']}"
        share = "" if zero is None else f"{zero:.0%}"
        table.append((name, row["method"], f"{row['milliseconds']:.3g}", *cells, *quality, share))
    return aligned(table)


def nuclear_table(rows: Sequence[nuclear_times.Row]) -> str:
    """Both methods on every problem."""
    table = [("nuclear norm", "method", "ms", "iterations", "residual / data", "relative error")]
    table += [
        (r.problem, r.method, f"{r.milliseconds:.3g}", str(r.iterations), f"{r.residual:.1e}", f"{r.error:.1e}")
        for r in rows
    ]
    return aligned(table)


def target_table(results: Sequence[dict[str, Any]]) -> str:
    """Promises and whether they are kept."""
    table = [("parameters", "promise", "measured", "at most", "")]
    table += [
        (r["set"], r["promise"], f"{r['measured']:.3g}", f"{r['bound']:.3g}", "kept" if r["kept"] else "NOT KEPT")
        for r in results
    ]
    return aligned(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0 whatever was measured, since other work on the machine can spoil a time."""
    parser = argparse.ArgumentParser(prog="python -m paper_checks.time_efficiency", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the small set and small matrices only, fewer repeats")
    parts = [*PARAMETER_SETS, NUCLEAR]
    parser.add_argument("--sets", nargs="+", choices=parts, metavar="NAME", help="what to measure (default: all)")
    parser.add_argument("--threads", type=int, help="threads of torch and of the compiled loops (default: torch's own)")
    parser.add_argument("--out", type=Path, default=Path("runs/time_efficiency"), help="folder for the result")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        if arguments.threads < 1:
            parser.error(f"--threads must be at least 1, got {arguments.threads}")
        torch.set_num_threads(arguments.threads)
    repeats, steps = (2, 2) if arguments.quick else (5, 20)
    names = arguments.sets or ([SMALL, NUCLEAR] if arguments.quick else parts)
    rows: list[dict[str, Any]] = []
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for name in [name for name in names if name != NUCLEAR]:
            print(f"{name} on {device} ...", file=sys.stderr, flush=True)
            rows += measure(name, repeats, steps, device)
    nuclear = []
    if NUCLEAR in names:
        print(f"{NUCLEAR} ...", file=sys.stderr, flush=True)
        nuclear = nuclear_times.rows(arguments.quick)
    kept = targets(rows) + nuclear_targets(nuclear)
    if rows:
        print(step_table(rows))
        print("" if torch.cuda.is_available() else "On a GPU: not measured.\n")
    print((nuclear_table(nuclear) + "\n\n" if nuclear else "") + target_table(kept))
    result = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "compiled_loops": compiled_module() is not None,
        "repeats": repeats,
        "steps_per_repeat": steps,
        "gpu": "measured" if torch.cuda.is_available() else "not measured",
        "steps": rows,
        "nuclear_norm": [row._asdict() for row in nuclear],
        "promises": kept,
    }
    print(f"\nwritten to {write_json(arguments.out / 'time_efficiency.json', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
