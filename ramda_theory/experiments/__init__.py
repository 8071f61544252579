"""The jobs of the command line, as Python functions, each with its figure beside it."""
