"""Regularized dual averaging with a diagonal preconditioner: methods, subproblem solvers and diagnostics."""
