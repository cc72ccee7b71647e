"""Generated convolutions and poolings beside the NumPy kernels, and float64."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine, windows, winograd
from distgrad.compile.llvm.layers import Layer
from distgrad.compile.passes import rectified, simplify
from distgrad.core.primitive import bind, registry
from distgrad.ops.windows import Geometry

pytestmark = pytest.mark.skipif(not engine.available(), reason="no llvmlite")


def generated(name, *arrays, **params):
    """A primitive in the generated executor; that it was generated is checked, too."""
    from distgrad.compile.cpu_exec import cpu_executor

    program = trace(lambda *a: bind(registry[name], *a, **params), arrays, name).program
    executor = cpu_executor(program, arrays)
    assert not executor.schedule.whole
    first, second = executor(arrays)[0], executor(arrays)[0]
    assert first.tobytes() == second.tobytes()
    return first


def exact(name, *arrays, **params):
    return registry[name].kernel(np, *[a.astype(np.float64) for a in arrays], **params)


def error(found, wanted):
    return np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def square(size, stride, before, after):
    return Geometry((size,) * 2, (stride,) * 2, ((before, after),) * 2, (1, 1))


# samples, height, width, channels in and out, geometry
CONVOLUTIONS = [
    (3, 9, 8, 1, 32, square(3, 1, 0, 0)),
    (2, 7, 9, 3, 20, square(3, 1, 1, 1)),
    (3, 9, 8, 32, 48, square(3, 1, 0, 0)),
    (2, 7, 9, 17, 35, square(3, 1, 1, 1)),
    (1, 2, 3, 32, 16, square(3, 1, 1, 1)),
    (2, 8, 8, 16, 32, square(2, 2, 0, 0)),
    (3, 9, 9, 16, 24, square(3, 2, 0, 1)),
    (3, 9, 7, 5, 7, square(5, 3, 2, 1)),
    (3, 6, 5, 16, 70, square(1, 1, 0, 0)),
    (2, 6, 5, 9, 16, square(1, 2, 0, 0)),
    (2, 2, 2, 3, 4, square(4, 1, 2, 3)),
    (2, 5, 6, 4, 3, Geometry((2, 3), (1, 2), ((1, 0), (0, 2)), (1, 1))),
]


def arrays_of(case):
    n, h, w, c, o, geometry = case
    counts = geometry.counts((h, w))
    return normal(n, h, w, c), normal(*geometry.size, c, o), normal(n, *counts, o)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_is_as_near_to_float64_as_a_direct_one(case):
    x, w, dy = arrays_of(case)
    geometry = case[-1]
    for name, arrays, params in (
        ("convolve", (x, w), {}),
        ("convolve_grad_x", (dy, w), {"shape": x.shape}),
        ("convolve_grad_w", (x, dy), {}),
    ):
        params["geometry"] = geometry
        wanted = exact(name, *arrays, **params)
        found = generated(name, *arrays, **params)
        direct = error(registry[name].kernel(np, *arrays, **params), wanted)
        assert found.shape == wanted.shape
        assert error(found, wanted) < 4 * direct + 1e-7, name


@pytest.mark.parametrize("case", CONVOLUTIONS[1::2])
def test_a_depthwise_convolution(case):
    n, h, w, c, _, geometry = case
    counts = geometry.counts((h, w))
    x, filters = normal(n, h, w, c), normal(*geometry.size, c, 1)
    dy = normal(n, *counts, c)
    for name, arrays, params in (
        ("depthwise_convolve", (x, filters), {}),
        ("depthwise_convolve_grad_x", (dy, filters), {"shape": x.shape}),
        ("depthwise_convolve_grad_w", (x, dy), {}),
    ):
        params["geometry"] = geometry
        wanted = exact(name, *arrays, **params)
        found = generated(name, *arrays, **params)
        assert found.shape == wanted.shape
        assert error(found, wanted) < 1e-6, name


def test_one_axis_is_like_two():
    geometry = Geometry((3,), (2,), ((1, 1),), (1,))
    x, w, dy = normal(2, 9, 5), normal(3, 5, 6), normal(2, 5, 6)
    for name, arrays, params in (
        ("convolve", (x, w), {}),
        ("convolve_grad_x", (dy, w), {"shape": x.shape}),
        ("convolve_grad_w", (x, dy), {}),
    ):
        params["geometry"] = geometry
        found = generated(name, *arrays, **params)
        np.testing.assert_allclose(found, exact(name, *arrays, **params), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CONVOLUTIONS[1:8:2])
def test_a_sample_has_the_same_bits_alone_and_among_others(case):
    x, w, dy = arrays_of(case)
    geometry = case[-1]
    y = generated("convolve", x, w, geometry=geometry)
    dx = generated("convolve_grad_x", dy, w, shape=x.shape, geometry=geometry)
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = generated("convolve", x[one], w, geometry=geometry)
        assert alone.tobytes() == y[one].tobytes()
        shape = (1, *x.shape[1:])
        alone = generated("convolve_grad_x", dy[one], w, shape=shape, geometry=geometry)
        assert alone.tobytes() == dx[one].tobytes()


def test_which_convolutions_are_winograd():
    layer = Layer(32, 64, (8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)))
    assert winograd.fits(layer)
    assert not winograd.fits(layer._replace(strides=(2, 2)))
    assert not winograd.fits(layer._replace(channels=3))
    assert not winograd.fits(layer._replace(size=(5, 5)))


POOLINGS = [
    (2, 6, 8, 32, square(2, 2, 0, 0)),
    (2, 7, 5, 19, square(2, 2, 0, 0)),
    (2, 7, 7, 3, square(3, 2, 1, 1)),
    (2, 7, 6, 16, square(3, 1, 1, 1)),
    (2, 7, 6, 5, square(2, 3, 0, 1)),
]


@pytest.mark.parametrize("case", POOLINGS)
def test_max_pooling_has_the_bits_of_numpy_and_gives_ties_to_the_first(case):
    *shape, geometry = case
    x = np.random.default_rng(1).integers(0, 4, shape).astype(np.float32)
    dy = normal(shape[0], *geometry.counts(shape[1:3]), shape[-1])
    kernels = registry["max_windows"].kernel, registry["max_windows_grad"].kernel
    found = generated("max_windows", x, geometry=geometry)
    np.testing.assert_array_equal(found, kernels[0](np, x, geometry=geometry))
    found = generated("max_windows_grad", dy, x, geometry=geometry)
    wanted = kernels[1](np, dy, x, geometry=geometry)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_max_pooling_keeps_nans():
    x = normal(1, 4, 4, 20)
    x[0, 1, 0, ::3] = np.nan
    geometry = square(2, 2, 0, 0)
    found = generated("max_windows", x, geometry=geometry)
    np.testing.assert_array_equal(found, registry["max_windows"].kernel(np, x, geometry=geometry))
    dy = normal(1, 2, 2, 20)
    found = generated("max_windows_grad", dy, x, geometry=geometry)
    wanted = registry["max_windows_grad"].kernel(np, dy, x, geometry=geometry)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("case", POOLINGS)
def test_mean_pooling_does_not_count_padding(case):
    *shape, geometry = case
    x, dy = normal(*shape), normal(shape[0], *geometry.counts(shape[1:3]), shape[-1])
    found = generated("mean_windows", x, geometry=geometry)
    np.testing.assert_allclose(found, exact("mean_windows", x, geometry=geometry), 1e-5, 1e-6)
    params = {"shape": x.shape, "geometry": geometry}
    found = generated("mean_windows_grad", dy, **params)
    wanted = exact("mean_windows_grad", dy, **params)
    np.testing.assert_allclose(found, wanted, 1e-6, atol=1e-7)  # of up to nine terms


def names(program):
    return [i.name for i in program.instructions if hasattr(i, "primitive")]


def pooled(x, bias, *, extra=False):
    """A loss after relu and pooling, its gradients, and maybe somebody else who needs relu."""
    with tf.GradientTape() as tape:
        tape.watch([x, bias])
        r = tf.nn.relu(x + bias)
        y = tf.nn.max_pool2d(r, 2, 2, "VALID")
        loss = tf.reduce_sum(y * tf.sin(y))
        loss = loss + tf.reduce_sum(r) if extra else loss
    return y, *tape.gradient(loss, [x, bias])


@pytest.mark.parametrize("shape", [(2, 6, 4, 16), (3, 7, 5, 19)])
def test_relu_and_pooling_become_one_that_keeps_places(shape):
    from distgrad.compile.cpu_exec import cpu_executor

    rng = np.random.default_rng(2)
    x = rng.integers(-3, 4, shape).astype(np.float32)  # ties, and windows with nothing above 0
    bias = rng.integers(-1, 2, shape[-1]).astype(np.float32)
    program = trace(pooled, [x, bias], "pooled").program
    executor = cpu_executor(program, [x, bias])
    made = names(executor.schedule.program)
    assert {"rectified_windows", "rectified_windows_grad"} <= set(made)
    assert not {"relu", "max_windows", "max_windows_grad"} & set(made)
    wanted = pooled(tf.constant(x), tf.constant(bias))
    for found, eager in zip(executor([x, bias]), wanted, strict=True):
        np.testing.assert_allclose(found, eager, rtol=1e-6, atol=1e-6)


def test_relu_stays_where_somebody_else_looks_at_it():
    x, bias = normal(2, 4, 4, 16), normal(16)
    program = trace(lambda *a: pooled(*a, extra=True), [x, bias], "pooled").program
    made = rectified(simplify(program), windows.rectifies)
    assert "relu" in names(made)
    assert "rectified_windows" not in names(made)


def test_places_have_the_kernels_of_numpy():
    x, bias = normal(2, 7, 6, 19), normal(19)
    geometry = square(2, 2, 0, 0)
    kernels = registry["rectified_windows"].kernel, registry["rectified_windows_grad"].kernel
    y, place = kernels[0](np, x, bias, geometry=geometry)
    r = np.maximum(x + bias, 0)
    np.testing.assert_array_equal(y, registry["max_windows"].kernel(np, r, geometry=geometry))
    dy = normal(*y.shape)
    wanted = registry["max_windows_grad"].kernel(np, dy, r, geometry=geometry) * (r > 0)
    found = kernels[1](np, dy, place, shape=x.shape, geometry=geometry)
    np.testing.assert_array_equal(found, wanted)


def test_arrays_with_gaps_and_other_dtypes_work_as_well():
    x, w = normal(2, 6, 6, 8), normal(3, 3, 4, 5)
    geometry = square(3, 1, 1, 1)

    def run(x, w):
        return bind(registry["convolve"], x[..., ::2], w, geometry=geometry)

    for dtype in (np.float32, np.float64):
        given = x.astype(dtype), w.astype(dtype)
        captured = tf.function(run)(*map(tf.constant, given))
        eager = run(*map(tf.constant, given))
        np.testing.assert_allclose(captured, eager, rtol=1e-5, atol=1e-6)


def test_kernels_can_be_called_on_arrays():
    x, w = normal(4, 12, 12, 16), normal(3, 3, 16, 20)
    geometry = square(3, 1, 1, 1)
    found = windows.run("convolve", x, w, geometry=geometry)
    assert found.tobytes() == generated("convolve", x, w, geometry=geometry).tobytes()
    out = np.empty_like(found)
    assert windows.run("convolve", x, w, geometry=geometry, out=out) is out
    assert out.tobytes() == found.tobytes()
    turned = np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    again = windows.run("convolve", turned, w, geometry=geometry)
    assert again.tobytes() == found.tobytes()
    dx = windows.run("convolve_grad_x", found, w, shape=x.shape, geometry=geometry)
    assert dx.shape == x.shape
    assert windows.run("convolve", x.astype(float), w.astype(float), geometry=geometry) is None
    assert windows.run("convolve", x[:1, :3, :3], w, geometry=geometry) is None  # small
    assert windows.run("convolve", x, w[:, :, :8], geometry=geometry) is None  # does not fit
    pairs = square(2, 2, 0, 0)
    most = windows.run("max_windows", found, geometry=pairs)
    assert most.tobytes() == generated("max_windows", found, geometry=pairs).tobytes()


def test_threads_have_memory_of_their_own():
    from distgrad.compile.cpu_exec import cpu_executor

    geometry = square(3, 1, 1, 1)
    w = normal(3, 3, 32, 32)
    inputs = [np.random.default_rng(i).normal(size=(4, 16, 16, 32)).astype("f") for i in range(4)]
    traced = trace(lambda *a: bind(registry["convolve"], *a, geometry=geometry), [inputs[0], w])
    executor = cpu_executor(traced.program, [inputs[0], w])
    wanted = [executor([x, w])[0].tobytes() for x in inputs]

    def run(i):
        outcomes = {executor([inputs[i], w])[0].tobytes() for _ in range(20)}
        outcomes |= {windows.run("convolve", inputs[i], w, geometry=geometry).tobytes()}
        return outcomes

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [{bits} for bits in wanted]
