"""Methods side by side over seeds: medians with exact intervals, and differences seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.tables import aligned, to_pandas

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class MedianInterval:
    """A median of independent runs, and between which of them that of all possible runs lies.

    Attributes
    ----------
    median, low, high : float
        Infinite where a run never got there.
    coverage : float
        Probability with which such an interval holds the median, whatever the distribution; below the level asked for
        where there are too few runs.
    runs : int
    """

    median: float
    low: float
    high: float
    coverage: float
    runs: int

    def __str__(self) -> str:
        return f"{_text(self.median)} ({_text(self.low)} to {_text(self.high)})"


def median_interval(values: Sequence[float | None], level: float = 0.95) -> MedianInterval:
    r"""The interval of the sign test.

    Of n independent runs, the k-th smallest and the k-th largest enclose the median of their distribution with
    probability at least :math:`1 - 2 \Pr(\mathrm{Bin}(n, 1/2) < k)`; k is the largest for which that is ``level``.
    Nothing is assumed of the distribution, so that runs which never got there may be among them.

    Parameters
    ----------
    values : sequence of float or None
        One per run; None for one that never got there, as `Identification.time` is.
    level : float
        In (0, 1).

    Returns
    -------
    MedianInterval

    Raises
    ------
    ValueError
        If there is no value or one is NaN, or ``level`` is out of its range.
    """
    level = real("level", level, minimum=0.0, strict=True)
    if level >= 1:
        raise ValueError(f"level must be in (0, 1), got {level!r}")
    found = np.sort(np.array([math.inf if value is None else float(value) for value in values]))
    n = len(found)
    if not n or np.isnan(found).any():
        raise ValueError(f"values must be numbers or None, at least one, got {list(values)!r}")
    k, outside = 1, 2.0 * 0.5**n
    while 2 * (k + 1) <= n and outside + 2 * math.comb(n, k) * 0.5**n <= 1 - level:
        outside += 2 * math.comb(n, k) * 0.5**n
        k += 1
    # Of an even number, the mean of the two in the middle; not inf - inf.
    middle = found[(n - 1) // 2 : n // 2 + 1]
    median = float(middle[0] if middle[0] == middle[-1] else middle.mean())
    return MedianInterval(median, float(found[k - 1]), float(found[n - k]), 1.0 - outside, n)


@dataclass(frozen=True)
class ComparisonRow:
    """One method.

    Attributes
    ----------
    method : str
    own : MedianInterval
    difference : MedianInterval or None
        Of its value minus the baseline's, seed by seed; None for the baseline.
    better, equal, worse : int
        Seeds on which its value is smaller than the baseline's, equal, larger.
    """

    method: str
    own: MedianInterval
    difference: MedianInterval | None
    better: int
    equal: int
    worse: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data.

        Returns
        -------
        dict
        """
        return asdict(self)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Methods over seeds; printing it shows `table`.

    Attributes
    ----------
    baseline : str
    rows : tuple of ComparisonRow
    level : float
    """

    baseline: str
    rows: tuple[ComparisonRow, ...]
    level: float

    def table(self) -> str:
        """A line per method.

        Returns
        -------
        str
        """
        lines = [("method", "runs", "median (interval)", f"minus {self.baseline}", "better", "equal", "worse")]
        for row in self.rows:
            counts = ("-",) * 3 if row.difference is None else (str(row.better), str(row.equal), str(row.worse))
            difference = "-" if row.difference is None else str(row.difference)
            lines.append((row.method, str(row.own.runs), str(row.own), difference, *counts))
        least = min(row.own.coverage for row in self.rows)
        note = "" if least >= self.level else f"; with so few runs, {least:.1%} only"
        return f"{aligned(lines)}\nintervals of {self.level:.0%}{note}"

    __str__ = __repr__ = table

    def to_pandas(self) -> pandas.DataFrame:
        """A row per method, "own.median", "difference.low" and so on as columns.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingExtra
            If pandas is not installed.
        """
        return to_pandas(self.rows)


def compare(
    runs: Mapping[str, Mapping[Any, float | None]], *, baseline: str | None = None, level: float = 0.95
) -> Comparison:
    """One number per run (T0, a gap), compared over seeds.

    Differences are taken seed by seed, so that what a seed does to all methods alike cancels.  Both never: equal.

    Parameters
    ----------
    runs : mapping
        Method -> seed -> the number, smaller is better; None for a run that never got there.
    baseline : str, optional
        The method that the others are compared with; by default the first.
    level : float
        Of the intervals, see `median_interval`.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is no such method, or methods do not have the same seeds.

    Examples
    --------
    >>> times = {"RAMDA": {1: 319, 2: 300, 3: 350}, "ProxSGD": {1: 7407, 2: None, 3: 7500}}
    >>> print(compare(times))
    method   runs  median (interval)   minus RAMDA         better  equal  worse
    -------  ----  ------------------  ------------------  ------  -----  -----
    RAMDA    3     319 (300 to 350)    -                   -       -      -
    ProxSGD  3     7500 (7407 to inf)  7150 (7088 to inf)  0       0      3
    intervals of 95%; with so few runs, 75.0% only
    """
    if not runs:
        raise ValueError("runs must hold at least one method, got none")
    first = next(iter(runs)) if baseline is None else baseline
    if first not in runs:
        raise ValueError(f"baseline must be one of {sorted(runs)}, got {first!r}")
    seeds = set(runs[first])
    for method, values in runs.items():
        if set(values) != seeds:
            raise ValueError(f"all methods must have the same seeds: {first} has {seeds}, {method} {set(values)}")
    rows = []
    for method, values in runs.items():
        own = median_interval(list(values.values()), level)
        if method == first:
            rows.append(ComparisonRow(method, own, None, 0, len(seeds), 0))
            continue
        pairs = [(_number(values[seed]), _number(runs[first][seed])) for seed in runs[first]]
        differences = [0.0 if a == b else a - b for a, b in pairs]
        signs = [sum(d < 0 for d in differences), sum(d == 0 for d in differences), sum(d > 0 for d in differences)]
        rows.append(ComparisonRow(method, own, median_interval(differences, level), *signs))
    return Comparison(first, tuple(rows), level)


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _text(value: float) -> str:
    return f"{value:.4g}"
