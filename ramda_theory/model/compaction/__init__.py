"""From zeros to a smaller model that computes the same: analysis of the graph, then surgery on the modules."""

from ramda_theory.model.compaction.compact import compact
from ramda_theory.model.compaction.result import Compaction, load_compact

__all__ = ["Compaction", "compact", "load_compact"]
