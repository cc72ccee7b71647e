"""bfloat16: that of ml_dtypes, a float like the others, and computed with as TensorFlow does.

The values that are spelt out are those of TensorFlow 2.21 on a CPU.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import distgrad as tf
from distgrad.core.dtypes import is_floating, is_number, kind_of, limits

BF = tf.bfloat16
IAE = tf.errors.InvalidArgumentError


def bf(*values):
    return tf.constant(list(values), BF)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_dtype():
    assert BF is tf.bfloat16 is tf.as_dtype("bfloat16") is tf.as_dtype(ml_dtypes.bfloat16)
    assert BF.numpy_dtype == ml_dtypes.bfloat16 and BF == "bfloat16" and tf.float16 != BF
    assert (BF.is_floating, BF.is_integer, BF.is_complex, BF.size) == (True, False, False, 2)
    assert (str(BF), BF.name) == ("<dtype: 'bfloat16'>", "bfloat16")
    assert float(BF.max) == -float(BF.min) == float.fromhex("0x1.fep127")
    assert float(limits(BF.numpy_dtype).eps) == 2**-7
    assert "bfloat16" in dir(tf)
    with pytest.raises(TypeError, match="use one of .*bfloat16"):
        tf.as_dtype("bfloat17")


def test_records_of_bytes_are_no_floats():
    """NumPy has them and bfloat16 under one kind."""
    record = np.dtype("V2")
    assert (kind_of(record), is_floating(record), is_number(record)) == ("V", False, False)
    assert (kind_of(BF.numpy_dtype), is_number(BF.numpy_dtype)) == ("f", True)
    with pytest.raises(ValueError, match=r"\|V2 cannot be converted"):
        tf.constant(np.zeros(2, record))


@pytest.mark.cpu
def test_who_does_without_it_does_not_load_ml_dtypes():
    code = "import sys, distgrad as tf; tf.constant(1.0) + 1.0; tf.keras; tf.distribute; "
    assert run(code + "print('ml_dtypes' in sys.modules)") == "False"
    assert run(code + "tf.bfloat16; print('ml_dtypes' in sys.modules)") == "True"


@pytest.mark.cpu
@pytest.mark.parametrize(
    "first",
    [
        "tf.constant(ml_dtypes.bfloat16(3))",
        "tf.constant(np.array([3], ml_dtypes.bfloat16))",
        "tf.constant([ml_dtypes.bfloat16(3)])",
        "tf.Variable(np.array([3], ml_dtypes.bfloat16))",
        "tf.cast(3, 'bfloat16')",
        "tf.zeros((1,), ml_dtypes.bfloat16) + 3",
    ],
)
def test_arrays_of_users_may_be_the_first(first):
    """3 * 1.0078125 is rounded to 3.03125, and that and 0.1 to 3.125."""
    code = f"import ml_dtypes, numpy as np, distgrad as tf; x = ({first}) * 1.0078125 + 0.1; "
    assert run(code + "print(x.dtype.name, float(tf.reduce_max(x)))") == "bfloat16 3.125"


@pytest.mark.cpu
def test_another_process_learns_of_it_from_what_it_is_sent(tmp_path):
    (tmp_path / "sent").write_bytes(pickle.dumps((bf(1.0, 2.0), tf.Variable(bf(3.0)))))
    code = f"""
import pickle
t, v = pickle.load(open({str(tmp_path / "sent")!r}, "rb"))
print((t * 1.01).dtype.name, (v * 2.5).numpy().tolist(), sum(t).dtype.name)"""
    assert run(code) == "bfloat16 [7.5] bfloat16"


def test_values_are_those_of_tensorflow():
    x = bf(1.0, 2.0)
    assert str(x) == "tf.Tensor([1 2], shape=(2,), dtype=bfloat16)"
    assert repr(x) == (
        "<tf.Tensor: shape=(2,), dtype=bfloat16, numpy=array([1, 2], dtype=bfloat16)>"
    )
    assert float(tf.cast(tf.constant(257.0), BF)) == 256
    assert float(tf.reduce_sum(tf.ones(1000, BF) * tf.constant(1.01, BF))) == 1008
    product = tf.matmul(tf.ones((2, 300), BF) * 1.01, tf.ones((300, 2), BF))
    assert product.dtype == BF and (product.numpy() == 302).all()
    assert tf.nn.softmax(x).numpy().tolist() == [0.26953125, 0.73046875]
    assert tf.math.erf(x).numpy().tolist() == [0.84375, 0.99609375]
    assert tf.divide(x, 3).numpy().tolist() == [0.333984375, 0.66796875]
    assert tf.range(tf.constant(3, BF)).dtype == BF
    assert float(tf.reduce_mean(tf.ones(1000, BF) * 1.01)) == 1.0078125


def test_a_result_is_rounded_once():
    """Each operation computes in float32: here 1 + 2**-8 + 2**-8, which is half of an ulp twice."""
    x = bf(1.0, 2**-8, 2**-8)
    assert float(tf.reduce_sum(x)) == 1 + 2**-7
    assert float((x[0] + x[1]) + x[2]) == 1.0  # two operations, each of which rounds to even
    assert float(tf.cast(tf.constant(1 + 2**-8 + 2**-20), BF)) == 1 + 2**-7


def test_python_numbers_are_weak_and_rounded_first():
    x = bf(1.0)
    for y in (x + 1, 1 + x, x * 2.0, 2.0 - x, x / 3, x**2, tf.maximum(x, 0.5), x // 1):
        assert y.dtype == BF
    # 1 + 2**-9 becomes 1 beside bfloat16, as it does in a tensor of it
    assert float(bf(2.0**20)[0] * (1 + 2**-9)) == 2.0**20
    assert (x + np.float64(1)).dtype == (x + np.ones(1, np.float32)).dtype == BF
    with pytest.raises(IAE, match="1j does not mix with bfloat16"):
        x + 1j
    with pytest.raises(ValueError, match="does not fit in bfloat16"):
        tf.constant(1e39, BF)


@pytest.mark.parametrize("other", ["float16", "float32", "float64", "int32"])
def test_other_tensors_do_not_mix_with_it(other):
    with pytest.raises(IAE, match=f"bfloat16.*{other}"):
        bf(1.0) + tf.constant([1], other)
    with pytest.raises(ValueError, match="use cast"):
        tf.Variable(bf(1.0)).assign(tf.constant([1], other))


def test_casts():
    x = tf.constant([1.5, -2.7, 300.0])
    for dtype in ("float16", "float32", "float64", "int32", "int64", "bool", "complex64"):
        there = tf.cast(bf(*x.numpy()), dtype)
        assert there.dtype == dtype and tf.cast(there, BF).dtype == BF
    assert tf.cast(bf(1.5, -2.7), "int32").numpy().tolist() == [1, -2]
    assert tf.saturate_cast(tf.constant([3.4e38, -1e300], tf.float64), BF).numpy().tolist() == [
        float(BF.max),
        float(BF.min),
    ]
    assert tf.saturate_cast(bf(1e30, 2.0), tf.float16).numpy().tolist() == [65280, 2]


def test_gradients_go_through_casts_and_stay_in_their_dtypes():
    w, b = tf.Variable([0.5, 2.0]), tf.Variable(bf(1.0, 1.0))
    with tf.GradientTape() as tape:
        y = tf.cast(w, BF) * b + 3.0
        loss = tf.reduce_sum(tf.cast(y * y, tf.float32))
    assert y.dtype == BF and loss.dtype == tf.float32
    dw, db = tape.gradient(loss, [w, b])
    assert (dw.dtype, db.dtype) == ("float32", "bfloat16")
    assert dw.numpy().tolist() == [7.0, 10.0] and db.numpy().tolist() == [3.5, 20.0]
    assert all(v is not None for v in (tape.watched_variables()))


def test_higher_and_forward_derivatives():
    x = bf(3.0)
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
        inner.watch(x), outer.watch(x)
        y = x * x * x
        first = inner.gradient(y, x)
    with tf.autodiff.ForwardAccumulator(x, bf(1.0)) as forward:
        z = x * x
    assert first.numpy().tolist() == [27.0] and outer.gradient(first, x).numpy().tolist() == [18.0]
    assert forward.jvp(z).numpy().tolist() == [6.0] and forward.jvp(z).dtype == BF


def test_variables():
    v = tf.Variable([1.0, 2.0], dtype=BF)
    v.assign_add([1.0, 2**-9])
    assert v.dtype == BF and v.numpy().tolist() == [2.0, 2.0]
    v[1].assign(7.0)
    v.scatter_nd_add([[0], [0]], [1.0, 1.0])
    assert v.numpy().tolist() == [4.0, 7.0] and v.numpy().dtype == ml_dtypes.bfloat16
    assert "dtype=bfloat16, numpy=array([4, 7], dtype=bfloat16)" in repr(v)


def test_comparisons_and_numbers_of_python():
    x = bf(1.0, 2.0, np.nan)
    assert (x > 1.5).numpy().tolist() == [False, True, False]
    assert (x == x).numpy().tolist() == [True, True, False]
    assert float(x[0]) == int(x[0]) == 1 and bool(x[1]) and f"{x[1]:.2f}" == "2.00"
    assert tf.argmax(x[:2]) == 1 and tf.sort(bf(2.0, 1.0)).numpy().tolist() == [1.0, 2.0]
    with pytest.raises(IAE, match="NaN"):
        tf.debugging.check_numerics(x, "x")


def test_random_numbers_are_those_of_float32_rounded():
    """But in [0, 1): what would be rounded to 1 is the number below it."""
    tf.random.set_seed(3)
    full = tf.random.stateless_uniform((20_000,), (1, 2))
    half = tf.random.stateless_uniform((20_000,), (1, 2), dtype=BF)
    below = 1 - 2**-8
    rounded = full.numpy().astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (rounded == 1).any()
    np.testing.assert_array_equal(tf.cast(half, "float32"), np.minimum(rounded, below))
    normal = tf.random.stateless_normal((64,), (1, 2), dtype=BF)
    wide = tf.random.stateless_normal((64,), (1, 2)).numpy()
    assert normal.numpy().tobytes() == wide.astype(ml_dtypes.bfloat16).tobytes()


@pytest.mark.cpu
def test_a_captured_function_has_the_bits_of_an_eager_one():
    rng = np.random.default_rng(0)
    x, w = (tf.constant(rng.normal(size=(64, 64)), dtype=BF) for _ in range(2))

    def f(x, w):
        y = tf.nn.gelu(x @ w * 0.1) + tf.nn.softmax(x)
        return y, tf.reduce_sum(y, 0), tf.cast(y, tf.float32), tf.transpose(y)[1:] / 3

    captured = tf.function(f, jit_compile="strict")
    for _ in range(2):
        for a, b in zip(captured(x, w), f(x, w), strict=True):
            assert a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
