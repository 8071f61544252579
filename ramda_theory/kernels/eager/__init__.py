"""The eager engine: torch's own operations, for tensors on any device, of any dtype, cut across processes or not."""

from ramda_theory.kernels.eager.step import coming_subproblem, present_subproblem, step, structured_point

__all__ = ["coming_subproblem", "present_subproblem", "step", "structured_point"]
