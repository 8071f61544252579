"""What a compiled engine is told of a regularizer: numbers and a grouping, never a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ENTRIES = ("l1", "mcp", "scad")


@dataclass(frozen=True)
class KernelSpec:
    """How the subproblem of psi in a diagonal metric is solved, for engines that cannot call Python.

    psi(w) = sum_i entry(w_i) + sum_g group_weight_g ||w_g||, with group_weight_g = group_weight sqrt(n_g) if
    ``size_scaled``, else group_weight; with ``group_gamma``, sum_g MCP(group_weight_g, group_gamma)(||w_g||).

    Parameters
    ----------
    entry : {"l1", "mcp", "scad"}
        What is applied to every entry: weight |x| + number/2 x^2, MCP(weight, gamma = number) or SCAD(weight, a =
        number).  A grouped psi has "l1" with number 0.
    weight : float
        Of the entries' part; 0 leaves it out.
    number : float
        l2 for "l1", gamma for "mcp", a for "scad".
    group_weight : float
        Of the groups' part; 0 leaves it out.
    size_scaled : bool
        Whether group weights are multiplied by the root of the groups' size.
    dims : tuple of int
        Axes that group norms are taken over, of the array seen in the shape ``view``.
    view : tuple of int, optional
        Shape (of as many entries, in C order) in which the groups lie along axes; None: the array's own.
    group_gamma : float, optional
        Reach of the MCP of group norms; None: the norms themselves count.

    Raises
    ------
    ValueError
        For another ``entry``, or groups whose entries have more than "l1" with number 0.
    """

    entry: Literal["l1", "mcp", "scad"]
    weight: float
    number: float = 0.0
    group_weight: float = 0.0
    size_scaled: bool = True
    dims: tuple[int, ...] = ()
    view: tuple[int, ...] | None = None
    group_gamma: float | None = None

    def __post_init__(self) -> None:
        if self.entry not in ENTRIES:
            raise ValueError(f"entry must be one of {', '.join(ENTRIES)}, got {self.entry!r}")
        if self.group_weight and self.weight and self.entry != "l1":
            raise ValueError(f"entry must be 'l1' where there are groups, got {self.entry!r}")
        if self.group_weight and self.number:
            raise ValueError(f"number must be 0 where there are groups, got {self.number!r}")
        if self.group_gamma is not None and self.weight:
            raise ValueError(f"weight must be 0 where group norms have an MCP, got {self.weight!r}")
