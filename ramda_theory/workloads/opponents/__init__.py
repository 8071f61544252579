"""Optimizers that the paper's are held against, written from their papers; for comparisons, not for use."""
