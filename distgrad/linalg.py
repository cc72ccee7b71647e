"""``tf.linalg``."""

from distgrad.core.later import absent as _absent
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
from distgrad.ops.factors import (
    eig,
    eigvals,
    logm,
    lu,
    lu_matrix_inverse,
    lu_reconstruct,
    lu_solve,
    sqrtm,
)
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
from distgrad.ops.tridiagonal import (
    eigh_tridiagonal,
    tridiagonal_matmul,
    tridiagonal_solve,
)

__all__ = [name for name in dir() if not name.startswith("_")]


__getattr__ = _absent(__name__)
