"""``tf.linalg``."""

from distgrad.ops.constants import eye
from distgrad.ops.decompositions import (
    eigh,
    eigvalsh,
    expm,
    lstsq,
    matrix_rank,
    pinv,
    qr,
    svd,
)
from distgrad.ops.diagonal import (
    band_part,
    diag,
    diag_part,
    set_diag,
    tensor_diag,
    tensor_diag_part,
)
from distgrad.ops.einsum import einsum
from distgrad.ops.linalg import adjoint, cross, matmul, matrix_transpose, matvec, tensordot, trace
from distgrad.ops.normalization import l2_normalize
from distgrad.ops.solvers import (
    cholesky,
    cholesky_solve,
    det,
    inv,
    logdet,
    slogdet,
    solve,
    triangular_solve,
)
from distgrad.ops.statistics import global_norm, norm, normalize

__all__ = [
    "adjoint",
    "band_part",
    "cholesky",
    "cholesky_solve",
    "cross",
    "det",
    "diag",
    "diag_part",
    "eigh",
    "eigvalsh",
    "einsum",
    "expm",
    "eye",
    "global_norm",
    "inv",
    "l2_normalize",
    "logdet",
    "lstsq",
    "matmul",
    "matrix_rank",
    "matrix_transpose",
    "matvec",
    "norm",
    "normalize",
    "pinv",
    "qr",
    "set_diag",
    "slogdet",
    "solve",
    "svd",
    "tensor_diag",
    "tensor_diag_part",
    "tensordot",
    "trace",
    "triangular_solve",
]
