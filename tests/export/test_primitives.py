"""Every primitive that has a converter: its samples through onnxruntime, beside its own kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import ExportError
from distgrad.core.primitive import Primitive, registry
from distgrad.export import converters, verify
from distgrad.export.model import to_onnx
from distgrad.testing.primitives import built_in, samples_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

BUILT_IN = built_in()
CONVERTED = {name: p for name, p in BUILT_IN.items() if converters.find(p) is not None}
# A look at values, which only constants allow, and a division by random integers.
LEFT_OUT = {("integer_power", 0), ("integer_power", 1), ("floordiv", 1)}
CASES = [
    pytest.param(name, i, id=f"{name}-{i}")
    for name, p in CONVERTED.items()
    for i in range(len(samples_of(p)))
    if (name, i) not in LEFT_OUT
]


class Bound(tf.keras.Model):
    """A primitive as a model of its arrays."""

    casts_inputs = False

    def __init__(self, primitive: Primitive, args: list[Any], params: dict) -> None:
        super().__init__()
        self._call = lambda arrays: primitive(
            *[next(arrays) if isinstance(a, np.ndarray) else a for a in args], **params
        )

    def call(self, arrays: list[Any]) -> Any:
        return self._call(iter(arrays))


def float32(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(np.float32) if value.dtype == np.float64 else value
    return np.dtype(np.float32) if value == np.dtype(np.float64) else value


@pytest.mark.parametrize(("name", "index"), CASES)
def test_as_its_kernel(name: str, index: int) -> None:
    sample = samples_of(BUILT_IN[name])[index]
    args = [float32(a) if isinstance(a, np.ndarray) else a for a in sample.args]
    params = {k: float32(v) if isinstance(v, np.dtype) else v for k, v in sample.params.items()}
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    model = Bound(BUILT_IN[name], args, params)
    made = to_onnx(model, [[tf.keras.Input(batch_shape=a.shape, dtype=a.dtype) for a in arrays]])
    run, _ = verify.runner(made.content)
    found = run({each.name: a for each, a in zip(made.inputs, arrays, strict=True)})
    expected = [each.numpy() for each in tf.nest.flatten(model([tf.constant(a) for a in arrays]))]
    assert [f.dtype for f in found] == [e.dtype for e in expected]
    verify.compare(found, expected, made.outputs, 1e-5)


ELEMENTWISE = sorted(n for n, p in CONVERTED.items() if p.expr and "f" in (p.kinds or "f"))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_for_any_batch(name: str) -> None:
    primitive = BUILT_IN[name]
    params = dict.fromkeys(primitive.param_names, 0.3)
    kinds = ["bool" if each == "condition" else "float32" for each in primitive.arg_names]
    arrays = [np.zeros((1, 3), kind) for kind in kinds]
    spec = [tf.keras.Input((3,), dtype=kind) for kind in kinds]
    made = to_onnx(Bound(primitive, arrays, params), [spec])
    assert made.batches == (1, 5) and made.difference < 1e-5


def test_few_that_inference_needs_are_missing() -> None:
    """What has no converter: gradients, updates, draws, decompositions, and rare functions."""
    missing = {name for name in BUILT_IN if name not in CONVERTED}
    rare = {
        *("conjugate", "real_part", "imag_part", "complex"),  # no complex numbers in ONNX
        *("nonzero", "mask_select", "unique_parts", "search_rows", "host_values"),
        *("nextafter", "truncatediv", "lgamma", "digamma", "polygamma", "zeta", "atan2"),
        *("erfinv", "erfcinv", "ndtri", "cross_product", "diagonal_embed", "diagonal_of"),
        *("cumprod_along", "cumulative_logsumexp_along", "linear_scan", "shift", "at_maximum"),
        *("put_rows", "put_max", "put_min", "ravel_index", "row_positions", "among_largest"),
        *("cross_entropy", "sparse_cross_entropy", "sum_to", "square_sum"),
        *("det_of", "sign_and_log_det", "inverse", "solve_system", "solve_triangle"),
        *("cholesky_factor", "qr_factors", "svd_factors", "singular_values"),
        *("eigen_pairs", "eigen_values", "product_over_shards", "sum_over_shards"),
        "rows_over_shards",
        *("fourier", "real_fourier", "lu_factors", "any_eigen_pairs", "solve_tridiagonal"),
        *("matrix_root", "matrix_logarithm", "left_shift", "right_shift", "reread"),
        *("bessel_i0", "bessel_i0e", "bessel_i1", "bessel_i1e", "igamma", "igammac", "betainc"),
        "gamma_slope",
        *("bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "bessel_k0", "bessel_k0e"),
        *("bessel_k1", "bessel_k1e", "dawsn", "expint", "fresnel_cos", "fresnel_sin", "spence"),
        # Several operations as one, which a record holds in parts, and programs after passes.
        *("biased", "dense", "rescaled", "lstm_cell", "lstm_steps", "attention"),
        *("rectified_windows", "mean_sparse_cross_entropy"),
        "observed_moments",  # of training
    }
    assert {
        name
        for name in missing - rare
        if not name.startswith("random_")
        and not name.endswith(("_update", "_grad"))
        and "_grad_" not in name
    } == set()


def test_a_primitive_without_a_converter_is_named_with_its_layer() -> None:
    inner = tf.keras.layers.Lambda(lambda x: tf.math.lgamma(x), name="gamma")
    model = tf.keras.Sequential([tf.keras.Input((3,)), inner], name="outer")
    with pytest.raises(ExportError, match=r"lgamma, of outer/gamma, has no converter"):
        to_onnx(model)


def test_a_converter_of_the_users_own() -> None:
    @converters.converter("lgamma")
    def _(to, x):
        return to.node("Abs", x)  # wrong, which the comparison finds

    try:
        model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Lambda(tf.math.lgamma)])
        with pytest.raises(ExportError, match="does not compute what the model does"):
            to_onnx(model)
    finally:
        del converters.registry["lgamma"]


def test_an_elementwise_primitive_needs_only_its_expression() -> None:
    assert "squared_difference" not in converters.registry
    assert converters.find(registry["squared_difference"]) is not None
