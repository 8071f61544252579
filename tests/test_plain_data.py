"""Regularizers are values: they compare, hash, and go to JSON and back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from cases import KINDS, regularizers
from examples import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm, Regularizer


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_round_trip_through_json(kind, data):
    regularizer = data.draw(
        regularizers(kind, data.draw(st.sampled_from([(7,), (3, 0, 4)])) if kind != "labels" else (7,))
    )
    plain_data = json.loads(json.dumps(regularizer.to_dict()))
    again = Regularizer.from_dict(plain_data)
    assert type(again) is type(regularizer) and again == regularizer and hash(again) == hash(regularizer)


def test_the_data_is_left_alone():
    data = GroupLasso(0.5, labels=(1, 0)).to_dict()
    assert data == {"name": "GroupLasso", "weight": 0.5, "dims": [0], "size_scaled": True, "labels": [1, 0]}
    Regularizer.from_dict(data)
    assert data["name"] == "GroupLasso"


def test_equal_by_value_and_immutable():
    assert L1(1) == L1(1.0) != L1(2.0) and len(set(EXAMPLES)) == len(EXAMPLES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        L1(1.0).weight = 2.0


def test_parameters_of_array_libraries_become_plain():
    """Numbers and axes may come as NumPy or torch scalars; what is stored is Python's."""
    psi = GroupLasso(torch.tensor(0.5), dims=(np.int64(1), torch.tensor(-3)))
    assert psi == GroupLasso(0.5, (1, -3)) and type(psi.weight) is float and all(type(d) is int for d in psi.dims)
    assert GroupLasso(0.5, dims=1).dims == (1,) and NuclearNorm(0.5, 0, 1) == NuclearNorm(0.5)
    assert GroupLasso(0.5, labels=np.array([2, 2, 0])).labels == (2, 2, 0)
    assert GroupLasso(0.5, labels=torch.tensor([2, 2, 0])).labels == (2, 2, 0)
