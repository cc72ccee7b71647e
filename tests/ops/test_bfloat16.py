"""Every primitive that takes floats, in bfloat16: what it gives in float32, rounded once."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.testing.primitives import built_in, samples_of

BFLOAT16 = tf.bfloat16.numpy_dtype


def floats(primitive, sample):
    """Whether it takes floats there, or makes them."""
    given = [a for a in sample.args if isinstance(a, np.ndarray) and a.dtype == np.float64]
    made = np.dtype(sample.params.get("dtype", bool)).kind == "f"
    return (given or made) and (primitive.kinds is None or "f" in primitive.kinds)


CASES = [
    pytest.param(p, s, id=f"{name}-{i}")
    for name, p in built_in().items()
    for i, s in enumerate(samples_of(p))
    if name != "custom_call" and floats(p, s)
]
# (The results of some are complex64, which bfloat16 has no counterpart of.)
COMPLEX = {"any_eigen_pairs", "complex", "real_fourier"}
DIFFERENTIABLE = [
    c for c in CASES if c.values[0].differentiable and c.values[0].name not in COMPLEX
]


def in_bfloat16(sample):
    args = [
        a.astype(BFLOAT16) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a
        for a in sample.args
    ]
    params = dict(sample.params)
    if np.dtype(params.get("dtype", bool)).kind == "f":
        params["dtype"] = BFLOAT16
    return args, params


def in_float32(args, params):
    """The same values; numbers beside them are rounded as they are beside bfloat16."""
    wide = []
    for a in args:
        if isinstance(a, np.ndarray) and a.dtype == BFLOAT16:
            a = a.astype(np.float32)
        wide.append(float(BFLOAT16.type(a)) if type(a) is float else a)
    return wide, {k: np.dtype(np.float32) if v == BFLOAT16 else v for k, v in params.items()}


def run(p, args, params):
    given = [tf.constant(a) if isinstance(a, np.ndarray) else a for a in args]
    out = bind(p, *given, **{**p.defaults, **params})
    return list(out) if isinstance(out, tuple) else [out]


@pytest.mark.parametrize(("p", "sample"), CASES)
def test_a_result_is_that_of_float32_rounded_once(p, sample):
    """But for what the gradient of attention needs: that is of float32 always."""
    args, params = in_bfloat16(sample)
    narrow, wide = run(p, args, params), run(p, *in_float32(args, params))
    assert len(narrow) == len(wide)
    for position, (found, full) in enumerate(zip(narrow, wide, strict=True)):
        expected = full.numpy()
        if full.dtype == "float32" and (p.name, position) != ("attention", 1):
            expected = expected.astype(BFLOAT16)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(("p", "sample"), DIFFERENTIABLE)
def test_a_gradient_is_near_that_of_float32(p, sample):
    """Rules are made of operations, each of which rounds: 2**-8 of what it adds up."""
    args, params = in_bfloat16(sample)
    found, expected = (gradients(p, *given) for given in ((args, params), in_float32(args, params)))
    assert len(found) == len(expected) > 0
    for narrow, wide in zip(found, expected, strict=True):
        assert (narrow is None) == (wide is None)
        if narrow is None:
            continue
        assert narrow.dtype == "bfloat16" and narrow.shape == wide.shape
        full = wide.numpy()
        atol = 0.02 * np.abs(full[np.isfinite(full)]).max(initial=0)
        np.testing.assert_allclose(narrow.numpy().astype(np.float32), full, rtol=0.02, atol=atol)


def gradients(p, args, params):
    tensors = [tf.constant(a) if isinstance(a, np.ndarray) else a for a in args]
    watched = [t for t in tensors if type(t) is Tensor and t.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        out = bind(p, *tensors, **{**p.defaults, **params})
        outputs = [t for t in tf.nest.flatten(out) if t.dtype.is_floating]
        weights = [np.cos(np.arange(t.shape.num_elements())).reshape(t.shape) for t in outputs]
        loss = sum(
            tf.reduce_sum(tf.cast(t, "float32") * w.astype(BFLOAT16).astype(np.float32))
            for t, w in zip(outputs, weights, strict=True)
        )
    found = tape.gradient(loss, watched)
    return [None if g is None else tf.convert_to_tensor(g) for g in found]
