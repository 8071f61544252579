"""Rows as aligned text and as a data frame."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from ramda_theory.tables import aligned, to_pandas


@dataclass
class Row:
    name: str
    value: float


class WithDict:
    def to_dict(self):
        return {"name": "b", "value": 2.0}


def test_columns_are_aligned_and_lines_end_where_their_text_does():
    text = aligned([("method", "T0"), ("RAMDA", "277"), ("a", "")])
    assert text.split("\n") == ["method  T0", "------  ---", "RAMDA   277", "a"]


def test_rows_of_every_kind_become_a_frame():
    pytest.importorskip("pandas")
    frame = to_pandas([Row("a", 1.0), WithDict(), {"name": "c", "value": 3.0}])
    assert frame.columns.tolist() == ["name", "value"]
    assert frame.to_dict("list") == {"name": ["a", "b", "c"], "value": [1.0, 2.0, 3.0]}


def test_nested_names_are_joined_and_what_is_missing_is_nan():
    pytest.importorskip("pandas")
    rows = [{"test": {"mean": 1.0, "runs": [1, 2]}}, {"test": {"mean": 3.0}, "other": {"deep": {"x": "y"}}}]
    frame = to_pandas(iter(rows))
    assert frame.columns.tolist() == ["test.mean", "test.runs", "other.deep.x"]
    assert frame["test.mean"].tolist() == [1.0, 3.0] and frame["test.runs"][0] == [1, 2]
    assert frame.isna()["test.runs"].tolist() == [False, True]


def test_rows_without_names_are_refused():
    with pytest.raises(TypeError, match="mappings, dataclasses or have to_dict, got tuple"):
        to_pandas([(1, 2)])


def test_without_pandas_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pandas is not installed: pip install"):
        to_pandas([{"a": 1}])
