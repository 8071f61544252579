"""``python -m paper_checks``: run the checks, print claim, measurement and verdict, write them beside their figures."""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks import all_checks
from paper_checks.check import Check
from ramda_theory.drawing import record_figure
from ramda_theory.extras import MissingExtra, require
from ramda_theory.files import write_atomically, write_json
from ramda_theory.tables import aligned

README = Path(__file__).with_name("README.md")


def run_checks(checks: Sequence[Check], quick: bool, out: Path | None) -> list[dict[str, Any]]:
    """Run checks one after another; an exception inside one is its verdict "error" and does not stop the rest."""
    results = []
    for item in checks:
        clock = time.process_time()
        try:
            outcome, files = item.run(quick, out)
            verdict, measured, reason = outcome.verdict, plain(outcome.measured), outcome.reason
        except Exception as error:
            traceback.print_exc()
            verdict, measured, reason, files = "error", {}, f"{type(error).__name__}: {error}", []
        results.append(
            {
                "id": item.id,
                "claim": item.claim,
                "kind": item.kind,
                "measured": measured,
                "criterion": item.criterion,
                "verdict": verdict,
                "expected": item.expected,
                "fault": item.fault,
                "reason": reason,
                "figures": [path.name for path in files],
                "seconds": round(time.process_time() - clock, 1),
            }
        )
        print(f"{item.id}: {verdict} ({results[-1]['seconds']} s)  {reason}", file=sys.stderr, flush=True)
        if out is not None:
            for path in files:
                record_figure(
                    out,
                    path.stem,
                    command=f"python -m paper_checks {item.id}" + (" --quick" if quick else ""),
                    seeds=f"written in {item.measure.__module__.replace('.', '/')}.py",
                    data=measured,
                )
            write_json(out / "paper_checks.json", results)
    return results


def plain(value: Any) -> Any:
    """NumPy numbers and arrays as plain data; NaN and Inf as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def table(results: Sequence[dict[str, Any]]) -> str:
    """Claim, kind, verdict and reason."""
    rows = [("check", "kind", "verdict", "expected", "why")]
    rows += [(r["id"], r["kind"], r["verdict"], r["expected"], r["reason"]) for r in results]
    return aligned(rows)


def readme(results: Sequence[dict[str, Any]], command: str) -> str:
    """The table of all verdicts as Markdown."""
    total = sum(result["seconds"] for result in results)
    lines = [
        "# Claims of the paper, checked",
        "",
        f"Written by `{command}` in {total / 60:.0f} min of processor time; Python {platform.python_version()}, "
        f"NumPy {np.__version__}.",
        "The criterion of each check was fixed before its run; claims that fail are shown as failed.",
        "What they add up to: [FINDINGS.md](FINDINGS.md).",
        "",
        "| check | claim | kind | criterion | measured | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = (result["claim"], result["kind"], result["criterion"], result["reason"], f"**{result['verdict']}**")
        text = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
        lines.append(f"| `{result['id']}` | {text} |")
    faults = [f"- `{result['id']}`: {result['fault']}" for result in results if result["fault"]]
    if faults:
        lines += ["", "## What is at fault where a check fails", "", *faults]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 1 if a check errs or its verdict is not the expected one."""
    parser = argparse.ArgumentParser(prog="python -m paper_checks", description="Run the checks of the paper's claims.")
    parser.add_argument("names", nargs="*", help="checks to run, or beginnings of their names (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller runs; some verdicts need the full ones")
    parser.add_argument("--out", type=Path, default=Path("runs/paper_checks"), help="folder for results and figures")
    parser.add_argument("--list", action="store_true", help="print the checks and stop")
    parser.add_argument("--readme", action="store_true", help="rewrite paper_checks/README.md from this run")
    arguments = parser.parse_args(argv)
    try:
        require("cpu")
        require("experiments")
    except MissingExtra as error:
        parser.exit(2, f"{error}\n")
    checks = all_checks()
    for name in arguments.names:
        if not any(item.id.startswith(name) for item in checks):
            parser.exit(2, f"no check begins with {name!r}; there are {', '.join(item.id for item in checks)}\n")
    chosen = [c for c in checks if not arguments.names or any(c.id.startswith(name) for name in arguments.names)]
    if arguments.list:
        print(aligned([("check", "kind", "claim"), *((c.id, c.kind, c.claim) for c in chosen)]))
        return 0
    results = run_checks(chosen, arguments.quick, arguments.out)
    print(table(results))
    if arguments.readme:
        text = readme(results, "python -m paper_checks --readme" + (" --quick" if arguments.quick else ""))
        write_atomically(README, lambda file: file.write(text.encode()))
    surprises = [result for result in results if result["verdict"] != result["expected"]]
    for result in surprises:
        print(f"NOT AS EXPECTED: {result['id']} is {result['verdict']!r}, expected {result['expected']!r}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
