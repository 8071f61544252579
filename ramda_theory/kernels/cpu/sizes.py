"""Sizes that the loops and the plan of their work agree on."""

BLOCK = 2**20
"""Entries of a block of columns: what is kept of them stays in the last-level cache."""
NARROWEST, WIDEST = 16, 4096
"""Columns of a block at least and at most; as wide as possible, since memory is read fastest along rows."""
LONGEST_GROUP = 2**24
"""Entries of `NARROWEST` columns at most."""
TOGETHER = 4096
"""Entries of adjacent groups that go through a loop together, so few that their scratch stays close at hand."""
WORTHWHILE = 2**17
"""Weights that are worth another thread."""
BATCHES = 32
"""Calls among which a thread's share of the work is divided, so that no thread waits long for another."""
