"""Tables: aligned text for a terminal, and rows as a pandas data frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from ramda_theory.extras import needs

if TYPE_CHECKING:
    import pandas


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as left-aligned columns of text.

    Parameters
    ----------
    rows : sequence of sequence of str
        All of the same length; the first row is the heading, which a line of dashes sets apart.

    Returns
    -------
    str
        A line per row.

    Examples
    --------
    >>> print(aligned([("method", "T0"), ("RAMDA", "277")]))
    method  T0
    ------  ---
    RAMDA   277
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def to_pandas(rows: Iterable[Any]) -> pandas.DataFrame:
    """Rows as a pandas data frame, one column per name.

    Parameters
    ----------
    rows : iterable of mapping, dataclass or object with ``to_dict``
        Such as the results of `identify`, `converge`, `validate` and `compare`.  Nested dicts become columns named
        "outer.inner"; lists stay in their cells.

    Returns
    -------
    pandas.DataFrame
        A row for each of ``rows``, in their order.

    Raises
    ------
    MissingExtra
        If pandas is not installed.
    TypeError
        If a row has no names for its values.

    Examples
    --------
    >>> to_pandas([{"method": "RAMDA", "test": {"mean": 0.98}}]).columns.tolist()  # doctest: +SKIP
    ['method', 'test.mean']
    """
    records = [record(row) for row in rows]
    with needs("experiments"):
        import pandas
    return pandas.DataFrame.from_records([dict(flattened(each)) for each in records])


def record(row: Any) -> Mapping[str, Any]:
    """A row as names and values."""
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "to_dict"):
        named: Mapping[str, Any] = row.to_dict()
        return named
    if is_dataclass(row) and not isinstance(row, type):
        return asdict(row)
    raise TypeError(f"rows must be mappings, dataclasses or have to_dict, got {type(row).__name__}")


def flattened(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Names and values of a nested mapping, names joined by dots."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
