"""What runs leave behind and what can be read from it."""

from ramda_theory.diagnostics.certificate import Certificate, certify
from ramda_theory.diagnostics.comparison import Comparison, ComparisonRow, MedianInterval, compare, median_interval
from ramda_theory.diagnostics.convergence import Rate, fit_rate, measure
from ramda_theory.diagnostics.identification import Identification, changes_per_epoch, identification
from ramda_theory.diagnostics.inexactness import Inexactness, inexactness
from ramda_theory.diagnostics.online import OnlineCertificate
from ramda_theory.diagnostics.path import PathPoint, RegularizationPath, regularization_path
from ramda_theory.diagnostics.record import Record, Table
from ramda_theory.diagnostics.screening import Screen, screen
from ramda_theory.diagnostics.trace import StructureTrace

__all__ = [
    "Certificate",
    "Comparison",
    "ComparisonRow",
    "Identification",
    "Inexactness",
    "MedianInterval",
    "OnlineCertificate",
    "PathPoint",
    "Rate",
    "Record",
    "RegularizationPath",
    "Screen",
    "StructureTrace",
    "Table",
    "certify",
    "changes_per_epoch",
    "compare",
    "fit_rate",
    "identification",
    "inexactness",
    "measure",
    "median_interval",
    "regularization_path",
    "screen",
]
