"""What runs leave behind and what can be read from it."""

from ramda_theory.diagnostics.convergence import Rate, fit_rate, measure
from ramda_theory.diagnostics.identification import Identification, changes_per_epoch, identification
from ramda_theory.diagnostics.inexactness import Inexactness, inexactness
from ramda_theory.diagnostics.record import Record, Table
from ramda_theory.diagnostics.trace import StructureTrace

__all__ = [
    "Identification",
    "Inexactness",
    "Rate",
    "Record",
    "StructureTrace",
    "Table",
    "changes_per_epoch",
    "fit_rate",
    "identification",
    "inexactness",
    "measure",
]
