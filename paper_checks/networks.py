"""``python -m paper_checks.networks``: Tables 3, 4, 5, 8 and 9, scaled or, with ``--full``, as published.

Every table's methods are tuned by one rule and run on equal budgets (`ramda_theory.experiments.workload_compare`), and
shown beside the paper's figures.  Table 8's network is the paper's own: its settings are kept, for 30 epochs instead of
300.  With ``--full`` the settings are the paper's own everywhere and nothing is tuned.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramda_theory.cli import arguments as types
from ramda_theory.drawing import command_line, record_figure
from ramda_theory.experiments.workload import Plan, train_workload
from ramda_theory.experiments.workload_compare import Contest, compare_workload, summary
from ramda_theory.tables import aligned


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Parameters
    ----------
    workload : str
    published : dict
        Method -> (metric, structure in %); None for methods without a regularizer.
    epochs : int
        Of the scaled runs.
    tune : bool
        Whether scaled runs tune weights; not where the network is the paper's own.
    rates : bool
        Whether they tune learning rates as well.
    limit : int, optional
        Batches of an epoch of a scaled run.
    """

    workload: str
    published: dict[str, tuple[float, float | None]]
    epochs: int
    tune: bool = True
    rates: bool = False
    limit: int | None = None


TABLES: dict[str, Table] = {
    "table_3": Table(
        "resnet50-imagenet",
        {
            "MSGD": (77.14, None),
            "ProxSGD": (73.50, 17.54),
            "ProxAdamW": (74.17, 20.29),
            "RMDA": (74.47, 25.20),
            "RAMDA": (74.53, 29.19),
        },
        5,
    ),
    "table_4": Table(
        "transformer-xl-wikitext103",
        {
            "AdamW": (23.00, None),
            "ProxSGD": (27.42, 33.1),
            "ProxAdamW": (27.49, 30.5),
            "RMDA": (27.10, 36.0),
            "RAMDA": (26.97, 36.2),
        },
        3,
        rates=True,
        limit=200,
    ),
    "table_5": Table(
        "tacotron2-ljspeech",
        {
            "AdamW": (0.39, None),
            "ProxSGD": (0.50, 34.3),
            "ProxAdamW": (0.45, 45.6),
            "RMDA": (0.46, 45.9),
            "RAMDA": (0.44, 52.9),
        },
        5,
        rates=True,
    ),
    "table_8": Table(
        "mlp-fashion-mnist",
        {
            "MSGD": (89.95, None),
            "ProxSGD": (87.54, 78.00),
            "ProxAdamW": (86.66, 87.46),
            "RMDA": (88.19, 91.88),
            "RAMDA": (87.99, 89.59),
        },
        30,
        tune=False,
    ),
    "table_9": Table(
        "vit-mim-cifar10",
        {
            "AdamW": (0.0865, None),
            "ProxSGD": (0.1042, 82.60),
            "ProxAdamW": (0.1120, 82.64),
            "RMDA": (0.1054, 86.23),
            "RAMDA": (0.1035, 86.20),
        },
        3,
    ),
}
"""Means over three seeds, from the paper's tables (ProxGen is ProxAdamW here)."""


def measured(
    table: Table,
    full: bool,
    seeds: Sequence[int],
    data: Path | None,
    out: Path,
    *,
    limit: int | None = None,
    command: str | None = None,
) -> list[dict[str, Any]]:
    """A row per method; the paper's size with its settings, or scaled with weights tuned alike.

    With ``limit`` an epoch has at most so many batches.
    """
    if not full:
        plan = Plan(table.workload, epochs=table.epochs, limit_batches=limit or table.limit)
        contest = Contest(plan, tuple(table.published), seeds, table.tune, table.rates, data)
        return compare_workload(contest, out=out, command=command)
    rows = []
    for name in table.published:
        results = []
        for seed in seeds:
            folder = out / "runs" / f"{name}-seed{seed}"
            plan = Plan(table.workload, size="paper", optimizer=name, seed=seed, limit_batches=limit)
            resume = (folder / "checkpoint.pt").exists()
            results.append(train_workload(plan, data=data, out=folder, resume=resume))
        rows.append(summary(results, results))
    return rows


def beside(table: Table, rows: Sequence[dict[str, Any]]) -> str:
    """What was measured beside what the paper has."""
    lines = [("method", "weight", "measured", "structure", "of w", "paper", "structure in the paper")]
    for row in rows:
        metric, structure = table.published[row["optimizer"]]
        levels = (f"{row[key]['mean']:.1%}" if key in row else "-" for key in ("level", "level_w"))
        paper = "-" if structure is None else f"{structure:g} %"
        test = f"{row['test']['mean']:.4g}" if "test" in row else "diverged"
        lines.append((row["optimizer"], f"{row['weight']:g}", test, *levels, f"{metric:g}", paper))
    return aligned(lines)


def arguments_parser() -> argparse.ArgumentParser:
    """What the command understands."""
    parser = argparse.ArgumentParser(prog="python -m paper_checks.networks", description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=list(TABLES), help=f"of {', '.join(TABLES)} (all)")
    parser.add_argument("--methods", nargs="+", help="of each table only these (all)")
    parser.add_argument("--full", action="store_true", help="the paper's models and settings; needs --data and GPUs")
    parser.add_argument("--data", type=Path, help="folder of the published data")
    parser.add_argument("--limit-batches", type=types.count, help="at most so many batches of an epoch, to try out")
    parser.add_argument("--seeds", type=types.seed, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/networks"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = arguments_parser()
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    for name in arguments.tables:
        if name not in TABLES:
            parser.error(f"tables must be among {', '.join(TABLES)}, got {name!r}")
        for method in arguments.methods or ():
            if method not in (known := TABLES[name].published):
                parser.error(f"--methods of {name} must be among {', '.join(known)}, got {method!r}")
    if len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error(f"--seeds must differ, got {', '.join(map(str, arguments.seeds))}")
    if arguments.full and arguments.data is None:
        parser.error("--full needs --data")
    for name in arguments.tables:
        methods = arguments.methods or TABLES[name].published
        table = replace(TABLES[name], published={method: TABLES[name].published[method] for method in methods})
        out = arguments.out / name
        command = command_line("python -m paper_checks.networks", argv)
        limit = arguments.limit_batches
        rows = measured(table, arguments.full, arguments.seeds, arguments.data, out, limit=limit, command=command)
        data = {"rows": rows, "paper": {key: list(value) for key, value in table.published.items()}}
        record_figure(out, name, command=command, seeds=arguments.seeds, data=data)
        print(f"{name}: {table.workload}{'' if arguments.full else ', scaled'}\n{beside(table, rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
