"""``ramda-theory workloads``: every workload with its data, groups, settings and cost."""

from __future__ import annotations

from ramda_theory.workloads.catalogue import CATALOGUE
from ramda_theory.workloads.registry import SIZES, WORKLOADS
from ramda_theory.workloads.workload import Workload


def listing() -> str:
    """Every workload in both sizes.

    Returns
    -------
    str
        A paragraph per workload.
    """
    return "\n\n".join(
        "\n".join([name, *paragraph(make(SIZES[0])), *(f"  scaled: {line}" for line in scaled(make(SIZES[1])))])
        for name, make in WORKLOADS.items()
    )


def paragraph(workload: Workload) -> list[str]:
    """What a workload is, at the paper's size."""
    lines = [f"  {workload.about}", f"  data: {CATALOGUE[workload.needs_data].title}, --data {workload.needs_data}"]
    better = "higher" if workload.higher_is_better else "lower"
    lines.append(f"  metric: {workload.metric} ({better} is better); {course(workload)}")
    lines.append(f"  regularized: {workload.regularizer.__name__}, {workload.why}")
    return [*lines, f"  cost: {workload.cost}", *(f"  {line}" for line in settings(workload))]


def course(workload: Workload) -> str:
    """Epochs, milestones and batch."""
    milestones = ", ".join(map(str, workload.milestones))
    return f"{workload.epochs} epochs, stages at {milestones}, batches of {workload.batch}"


def settings(workload: Workload) -> list[str]:
    """A line per optimizer."""
    return [
        f"{name}: lr {own.lr:g}"
        + (f", averaging {own.averaging:g}" if "Adam" not in name else "")
        + (f", weight {own.weight:g}" if own.weight else "")
        for name, own in workload.settings.items()
    ]


def scaled(workload: Workload) -> list[str]:
    """What differs in the scaled one, in one or two lines."""
    return [f"{workload.about}; {workload.cost}", course(workload)]
