"""The rarer functions of ``keras.ops``: gradients, captured steps, and what Keras cannot show."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.keras import ops
from distgrad.testing.gradients import check_gradients

RNG = np.random.default_rng(5)
A, B = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
HOLES = np.where(A > 0.5, np.nan, A)


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (ops.cbrt, (np.abs(A) + 0.2,)),
        (ops.sinc, (A,)),
        (ops.hypot, (A, B)),
        (ops.fmax, (A, B)),
        (ops.ldexp, (A, np.array([1.0, 2.0, 0.0, -1.0]))),
        (lambda x: ops.nanmean(x + HOLES * 0, axis=1), (A,)),
        (lambda x: ops.kron(x, x[:2, :2]), (A,)),
        (lambda x, y: ops.cross(x[:, :3], y[:, :3]), (A, B)),
        (lambda x: ops.diff(x, n=2), (A,)),
        (lambda x: ops.trapezoid(x, dx=0.3), (A,)),
        (ops.corrcoef, (A,)),
        (lambda x, y: ops.correlate(x[0], y[0], mode="full"), (A, B)),
        (ops.cdist, (A, B)),
        (ops.pinv, (A,)),
        (lambda x: ops.fft((x, x * 2))[0], (A,)),
        (lambda x: ops.hypot(*ops.stft(x, 2, 1, 4)), (A,)),
        (lambda x: ops.istft(ops.stft(x, 4, 2, 4, window=None), 4, 2, 4, window=None), (A,)),
        (lambda x: ops.unfold(ops.reshape(x, (1, 1, 3, 4)), 2), (A,)),
        (lambda x: ops.fold(ops.reshape(x, (1, 4, 3)), (2, 4), 2), (A,)),
        (lambda x: ops.adaptive_max_pool(ops.reshape(x, (1, 3, 4)), 2), (A,)),
        (lambda x: ops.associative_scan(lambda a, b: a * b, x, axis=1), (A,)),
    ],
)
def test_gradients(fn, args):
    check_gradients(fn, args, order=1)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 67, 128, 360, 1000, 1009, 4096])
def test_transforms_of_any_length(n):
    """Primes, products of small numbers and powers of two, in float64 to its last digits."""
    re, im = np.random.default_rng(n).normal(size=(2, 3, n))
    wanted = np.fft.fft(re + 1j * im)
    real, imag = ops.fft((re, im))
    np.testing.assert_allclose(real.numpy() + 1j * imag.numpy(), wanted, atol=1e-10 * n)
    real, imag = ops.rfft(re)
    np.testing.assert_allclose(real.numpy() + 1j * imag.numpy(), np.fft.rfft(re), atol=1e-10 * n)
    if n < 2000:
        np.testing.assert_allclose(ops.irfft((real, imag), n).numpy(), re, atol=1e-10)


def test_a_signal_comes_back_from_its_frames():
    signal = np.random.default_rng(0).normal(size=(2, 160))
    for center in (True, False):
        spectrum = ops.stft(signal, 16, 4, 16, center=center)
        back = ops.istft(spectrum, 16, 4, 16, length=144, center=center).numpy()
        inside = slice(16, 128)
        np.testing.assert_allclose(back[:, inside], signal[:, :144][:, inside], atol=1e-12)


def test_captured():
    def step(x, y):
        a = ops.nanvar(x, axis=0) + ops.trapezoid(y, axis=0)
        b, _ = ops.rfft(ops.kron(x, y), 16)
        c = ops.right_shift(ops.cast(x * 100, "int32"), 2)
        return a, b, c, ops.i0(x), ops.isin(c, [1, 2, 3]), ops.histogram(x[0], 4)[0]

    captured = tf.function(step, jit_compile=True)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = (tf.constant(rng.normal(size=(3, 4)).astype("float32")) for _ in range(2))
        for ours, eager in zip(captured(x, y), step(x, y), strict=True):
            np.testing.assert_allclose(ours.numpy(), eager.numpy(), rtol=1e-5, atol=1e-5)


def test_eigenvalues_of_any_matrix():
    x = RNG.normal(size=(2, 4, 4))
    values, vectors = (part.numpy() for part in ops.eig(x))
    np.testing.assert_allclose(x @ vectors, vectors * values[:, None, :], atol=1e-12)


def test_factors_give_the_matrix():
    x = RNG.normal(size=(3, 5, 5))
    both, order = (part.numpy() for part in ops.lu_factor(x))
    product = (np.tril(both, -1) + np.eye(5)) @ np.triu(both)
    np.testing.assert_allclose(np.take_along_axis(product, order[..., None], 1), x, atol=1e-12)
    assert np.abs(np.tril(both, -1)).max() <= 1  # the largest pivots


def test_derivatives_along_a_direction():
    out, moved = ops.jvp(lambda x, y: {"z": x * ops.sin(y)}, (2.0, 0.5), (1.0, 3.0))
    assert float(out["z"]) == pytest.approx(2 * np.sin(0.5))
    assert float(moved["z"]) == pytest.approx(np.sin(0.5) + 6 * np.cos(0.5))
    assert ops.jvp(lambda x: (x, "aux"), (1.0,), (2.0,), has_aux=True)[2] == "aux"


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_scans_of_functions_that_do_not_commute(n, reverse):
    """Affine maps, one after the other."""
    a, b = np.random.default_rng(n).normal(size=(2, n, 2))

    def after(first, second):
        return [second[0] * first[0], second[0] * first[1] + second[1]]

    calls = []
    found = ops.associative_scan(
        lambda x, y: calls.append(1) or after(x, y), [a, b], reverse=reverse
    )
    slope, shift = np.ones(2), np.zeros(2)
    for i in range(n)[::-1] if reverse else range(n):
        slope, shift = a[i] * slope, a[i] * shift + b[i]
        np.testing.assert_allclose(found[0][i].numpy(), slope)
        np.testing.assert_allclose(found[1][i].numpy(), shift)
    assert len(calls) <= 2 * np.log2(max(n, 2)) + 2
    with pytest.raises(ValueError, match="same first"):
        ops.associative_scan(after, [a, b[:-1]])


def test_functions_of_scalars_and_of_vectors():
    largest = ops.vectorize(lambda x, y: ops.where(x > y, x, y))
    np.testing.assert_array_equal(largest(A, B[0]).numpy(), np.maximum(A, B[0]))
    product = ops.vectorize(lambda m, v: ops.matmul(m, v), signature="(m,n),(n)->(m)")
    stack = RNG.normal(size=(2, 3, 4))
    np.testing.assert_allclose(product(stack, B[0]).numpy(), stack @ B[0])
    power = ops.vectorize(lambda x, n: x**n, excluded={1})
    np.testing.assert_allclose(power(A, 2).numpy(), A**2)


def test_what_is_new_tells_what_is_wrong():
    for bad, text in (
        (lambda: ops.fft(A), "tuple of two"),
        (lambda: ops.stft(A, 4, 1, 2), "fft_length"),
        (lambda: ops.rearrange(A, "a b c -> a b c"), "does not fit"),
        (lambda: ops.rearrange(A, "(a b) c -> a b c", a=2), "does not fit"),
        (lambda: ops.cross(A, B), "2 or 3"),
        (lambda: ops.histogram(A), "1-dimensional"),
        (lambda: ops.select([A > 0], [A, B]), "choices"),
        (lambda: ops.view_as_complex(A), "pairs"),
        (lambda: ops.space_to_depth(np.zeros((1, 3, 4, 1)), 2), "whole blocks"),
    ):
        with pytest.raises(ValueError, match=text):
            bad()


def test_numbers_within_sizes():
    assert ops.unique([3, 1, 3], size=3).numpy().tolist() == [1, 3, 0]
    assert ops.unique([3, 1, 3], size=3, fill_value=9).numpy().tolist() == [1, 3, 9]
    found = ops.adaptive_average_pool(np.arange(7.0).reshape(1, 7, 1), 3).numpy().ravel()
    np.testing.assert_allclose(found, [1.0, 3.0, 5.0])
    assert ops.rot90(A, k=2).numpy().tolist() == np.rot90(A, 2).tolist()
    z = ops.polar([1.0, 2.0], [0.0, np.pi / 2])
    np.testing.assert_allclose(ops.view_as_real(z).numpy(), [[1, 0], [0, 2]], atol=1e-6)
    np.testing.assert_allclose(ops.angle(z).numpy(), [0, np.pi / 2], atol=1e-6)


def test_nan_is_in_medians_and_hypotenuses():
    for function in (ops.median, lambda x, axis: ops.quantile(x, [0.2, 0.7], axis)[1]):
        found = np.isnan(function(HOLES, axis=1).numpy())
        assert found.tolist() == np.isnan(HOLES).any(1).tolist() and found.any()
    nan = np.nan
    assert np.isnan(ops.hypot([0.0, nan, nan], [nan, 0.0, nan]).numpy()).all()
    assert ops.median(np.zeros((0, 3)), axis=1).shape == (0,)


def test_integers_stay_integers():
    found = ops.round(np.array([21, 14, 16, -7]), -1)
    assert found.dtype == "int64" and found.numpy().tolist() == [20, 10, 20, -10]
    assert ops.round(np.array([21, 14]), 1).numpy().tolist() == [21, 14]
    assert ops.relu6(np.array([-1, 3, 9], "int32")).dtype == "int32"
    trace = ops.trace(np.full((2, 2), 200, "uint8"))
    assert trace.dtype == "uint32" and int(trace) == 400


@pytest.mark.parametrize("ord", [0, -1, -2, -3, -np.inf, "nuc"])
def test_norms_of_every_order(ord):
    if ord != "nuc":
        found = ops.norm(A, ord, axis=1, keepdims=True).numpy()
        np.testing.assert_allclose(found, np.linalg.norm(A, ord, 1, True), rtol=1e-6)
    if ord not in (0, -3):
        for axis in (None, (1, 0)):
            found, wanted = ops.norm(A, ord, axis).numpy(), np.linalg.norm(A, ord, axis)
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        both = np.stack([A, B])
        found = ops.norm(both, ord, (0, 2), keepdims=True).numpy()
        np.testing.assert_allclose(found, np.linalg.norm(both, ord, (0, 2), True), rtol=1e-6)
        check_gradients(lambda x: ops.norm(x, ord), (A[:, :3],), order=1)


def test_rooms():
    assert ops.nn.relu is ops.relu and ops.linalg.pinv is ops.pinv and ops.numpy.diff is ops.diff
    assert "relu" in dir(ops.nn) and "relu" not in dir(ops.numpy)
    assert "pinv" in dir(ops.linalg) and "diff" in dir(ops.numpy)
    with pytest.raises(AttributeError, match="relu"):
        ops.linalg.relu  # noqa: B018


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_quantiles_of_what_is_there_pass_gradients(method):
    """The weights of the elements are what finite differences say."""
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    x[0, 1], x[1, :, 0], x[2, 3, 1] = np.nan, np.nan, np.nan
    holes = tf.constant(x)

    def total(values):
        found = ops.nanquantile(values, [0.3125, 0.8125], axis=(0, 1), method=method)
        expected = np.nanquantile(values.numpy(), [0.3125, 0.8125], (0, 1), method=method)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        return tf.reduce_sum(found * tf.constant([[1.0, 2.0], [3.0, 4.0]], tf.float64))

    with tf.GradientTape() as tape:
        tape.watch(holes)
        y = total(holes)
    gradient = tape.gradient(y, holes).numpy()
    step = 1e-5 * np.random.default_rng(1).normal(size=x.shape)
    slope = (total(tf.constant(x + step)) - total(tf.constant(x - step))) / 2
    np.testing.assert_allclose(np.sum(gradient * step), slope, rtol=1e-6)
    assert not gradient[np.isnan(x)].any()


def test_the_median_of_nothing_and_of_infinities():
    x = np.array([[np.nan, np.nan], [np.inf, 1.0], [np.inf, np.inf]], np.float32)
    np.testing.assert_array_equal(ops.nanmedian(x, axis=1), [np.nan, np.inf, np.inf])
    assert ops.nanmedian(x, axis=1, keepdims=True).shape == (3, 1)
    with pytest.raises(ValueError, match="method is one of"):
        ops.nanquantile(x, 0.5, method="best")
