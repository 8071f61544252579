"""Data sets, models and settings of experiments with networks."""
