"""The jobs of the command line, as Python functions."""
