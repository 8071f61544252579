"""The compiled engine of the CPU: Numba loops over tensors in memory, one pass over what a step reads and writes."""
