"""Bad arguments are refused at the door, naming the argument, its value and what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from examples import MATRIX

from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    Regularizer,
    SparseGroupLasso,
)

Z = np.ones((6, 8))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L1(-1.0), ValueError, "weight must be finite and >= 0, got -1.0"),
        (lambda: L1(float("nan")), ValueError, "weight must be finite and >= 0, got nan"),
        (lambda: L1(float("inf")), ValueError, "weight must be finite"),
        (lambda: L1("0.1"), TypeError, "weight must be a real number, got '0.1'"),
        (lambda: L1(True), TypeError, "weight must be a real number, got True"),
        (lambda: L1(1j), TypeError, "weight must be a real number"),
        (lambda: L1(None), TypeError, "weight must be a real number, got None"),
        (lambda: L1(np.ones(2)), TypeError, "weight must be a real number"),
        (lambda: GroupLasso(-1e-9), ValueError, "weight must be finite and >= 0, got -1e-09"),
        (lambda: NuclearNorm(-2), ValueError, "weight must be finite and >= 0, got -2"),
        (lambda: ElasticNet(1.0, -0.5), ValueError, "l2 must be finite and >= 0, got -0.5"),
        (lambda: MCP(1.0, 0.0), ValueError, "gamma must be finite and > 0, got 0.0"),
        (lambda: MCP(1.0, -3.0), ValueError, "gamma must be finite and > 0, got -3.0"),
        (lambda: GroupMCP(1.0, 0), ValueError, "gamma must be finite and > 0, got 0"),
        (lambda: SCAD(1.0, 2.0), ValueError, "a must be finite and > 2, got 2.0"),
        (lambda: SparseGroupLasso(1.0, 1.5), ValueError, r"l1_ratio must be in \[0, 1\], got 1.5"),
        (lambda: SparseGroupLasso(1.0, -0.1), ValueError, "l1_ratio must be finite and >= 0, got -0.1"),
        (lambda: GroupLasso(1.0, dims=(0.5,)), TypeError, "dims must be an integer or a sequence of integers"),
        (lambda: GroupLasso(1.0, dims="01"), TypeError, "dims must be an integer or a sequence of integers, got '01'"),
        (lambda: GroupLasso(1.0, size_scaled=2), TypeError, "size_scaled must be True or False, got 2"),
        (lambda: GroupLasso(1.0, labels=(0.5, 1)), TypeError, "labels must be an integer or a sequence of integers"),
        (lambda: GroupLasso(1.0, labels=[[0, 1]]), TypeError, "labels must be an integer or a sequence of integers"),
        (lambda: GroupLasso(1.0, dims=(1,), labels=(0, 1)), ValueError, "dims and labels exclude each other"),
        (lambda: NuclearNorm(1.0, row_dims="a"), TypeError, "row_dims must be an integer or a sequence"),
        (lambda: L1(1.0, 2.0), TypeError, "positional argument"),
        (lambda: GroupLasso(1.0, dim=(0,)), TypeError, "dim"),
    ],
)
def test_bad_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("regularizer", "shape", "message"),
    [
        (GroupLasso(1.0, (2,)), (6, 8), r"dims must name axes of an array with 2 axes \(shape \(6, 8\)\), got \(2,\)"),
        (GroupLasso(1.0, (-3,)), (6, 8), r"got \(-3,\)"),
        (GroupLasso(1.0, (0,)), (), r"with 0 axes"),
        (GroupLasso(1.0, (0, -2)), (6, 8), r"dims must name distinct axes, got \(0, -2\)"),
        (GroupMCP(1.0, 2.0, (5,)), (6, 8), r"got \(5,\)"),
        (SparseGroupLasso(1.0, 0.5, (5,)), (6, 8), r"got \(5,\)"),
        (GroupLasso(1.0, labels=(0, 0, 1)), (4,), r"labels give groups of a vector of 3 entries, got \(4,\)"),
        (GroupLasso(1.0, labels=(0, 0, 1)), (3, 1), r"vector of 3 entries"),
        (NuclearNorm(1.0), (6,), r"row_dims and column_dims must together name each of the 1 axes"),
        (NuclearNorm(1.0), (6, 8, 2), r"each of the 3 axes of shape \(6, 8, 2\) once, got \(0,\) and \(1,\)"),
        (NuclearNorm(1.0, (0, 1), (1,)), (6, 8), r"got \(0, 1\) and \(1,\)"),
        (NuclearNorm(1.0, (0,), (2,)), (6, 8), r"got \(0,\) and \(2,\)"),
    ],
)
def test_axes_and_labels_that_do_not_fit(regularizer, shape, message):
    z = np.ones(shape)
    for act in (regularizer.value, regularizer.prox, regularizer.structure, regularizer.critical_weight):
        with pytest.raises(ValueError, match=message):
            act(z)
        with pytest.raises(ValueError, match=message):
            act(torch.ones(shape))
    for act in (regularizer.subdifferential_distance, regularizer.nondegeneracy_margin):
        with pytest.raises(ValueError, match=message):
            act(z, z)
    if hasattr(regularizer, "metric_prox"):
        with pytest.raises(ValueError, match=message):
            regularizer.metric_prox(z, 10 + z)


@pytest.mark.parametrize("regularizer", MATRIX, ids=str)
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (Z + 0j, "must have a real floating dtype, got complex128"),
        (Z.astype(int), "must have a real floating dtype, got int64"),
        (Z > 0, "must have a real floating dtype, got bool"),
        (torch.ones(6, 8, dtype=torch.complex64), "must have a real floating dtype, got torch.complex64"),
        (torch.ones(6, 8, dtype=torch.int32), "must have a real floating dtype, got torch.int32"),
        (torch.ones(6, 8).to_sparse(), "must be dense, got a sparse"),
        (scipy.sparse.csr_array(Z), "must be dense, got a sparse csr_array"),
        (scipy.sparse.coo_matrix(Z), "must be dense, got a sparse coo_matrix"),
        (Z.tolist(), "expected NumPy arrays or torch tensors, all of one library"),
        (None, "expected NumPy arrays or torch tensors"),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")) if not isinstance(value, str) else "",
)
def test_data_that_is_not_dense_and_real(regularizer, z, message):
    acts = {"prox": regularizer.prox, "value": regularizer.value, "structure": regularizer.structure}
    for name, act in {**acts, "critical_weight": regularizer.critical_weight}.items():
        with pytest.raises(TypeError, match=message):
            act(z)
            pytest.fail(name)


@pytest.mark.parametrize("regularizer", MATRIX, ids=str)
def test_mixed_libraries_and_shapes(regularizer):
    pairs = [regularizer.subdifferential_distance, regularizer.nondegeneracy_margin]
    if hasattr(regularizer, "metric_prox"):
        pairs.append(regularizer.metric_prox)
    for act in pairs:
        with pytest.raises(TypeError, match="all of one library, got"):
            act(Z, torch.ones(6, 8))
        with pytest.raises(ValueError, match=r"shapes must agree, got .* \(6, 8\), .* \(1, 8\)"):
            act(Z, 10 + Z[:1])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"name": "Lasso", "weight": 1.0}, ValueError, "name must be one of .*'L1'.* got 'Lasso'"),
        ({"weight": 1.0}, ValueError, "name must be one of"),
        ({"name": "L1", "weight": 1.0, "gamma": 2.0}, ValueError, r"L1 has no argument 'gamma'; it takes \['weight'\]"),
        ({"name": "MCP", "weight": 1.0}, TypeError, "gamma"),
        ({"name": "L1", "weight": -1.0}, ValueError, "weight must be finite and >= 0"),
    ],
)
def test_bad_plain_data(data, error, message):
    with pytest.raises(error, match=message):
        Regularizer.from_dict(data)


def test_a_step_per_piece_of_the_nuclear_norm():
    with pytest.raises(ValueError, match="step must be a scalar for the nuclear norm"):
        NuclearNorm(1.0).prox(Z, np.ones(8))


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_compressed_sparse_tensors():
    with pytest.raises(TypeError, match="z must be dense, got layout"):
        L1(1.0).prox(torch.ones(6, 8).to_sparse_csr())
