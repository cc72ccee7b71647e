"""Convolutions and attention through the stand-in for cuDNN's front end, beside the CPU's."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend import cudnn
from distgrad.backend.cudnn import CONVOLUTIONS, Layout
from distgrad.compile import cupy_exec
from distgrad.compile.capture import trace
from distgrad.compile.cupy_exec import cuda_executor
from distgrad.core import devices, dispatch
from distgrad.core.primitive import bind, registry
from distgrad.ops.windows import Geometry
from distgrad.testing import cuda_on_cpu, fake_cudnn, fake_cupy
from distgrad.testing.standin import asarray

pytestmark = pytest.mark.cpu  # it installs the other module itself
RNG = np.random.default_rng(0)


@pytest.fixture
def gpu() -> Iterator:
    with fake_cupy.installed():
        devices.use("cuda")
        yield dispatch.current()


@pytest.fixture
def plans(gpu, monkeypatch) -> list[str]:
    """The operations of the plans that are run, as they are."""
    run: list[str] = []
    execute = fake_cudnn.pygraph.execute

    def noted(self, *args, **kwargs):
        run.append(self.name)
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(fake_cudnn.pygraph, "execute", noted)
    return run


def floats(*shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


# Convolutions

GEOMETRIES = [
    Geometry((3, 2), (1, 1), ((1, 1), (0, 1)), (1, 1)),
    Geometry((3, 3), (2, 1), ((0, 1), (1, 1)), (1, 2)),
    Geometry((2, 2), (3, 2), ((0, 0), (0, 0)), (2, 1)),  # which leaves pixels out
    Geometry((1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    Geometry((3,), (2,), ((0, 1),), (1,)),
    Geometry((2, 1, 3), (1, 2, 1), ((1, 0), (0, 0), (1, 1)), (1, 1, 2)),
]


def arguments(name, geometry, dtype="float32", channels=8):
    """Arrays for a primitive, and its parameters."""
    depthwise = name.startswith("depthwise")
    space = (9, 8, 7)[: len(geometry.size)]
    x = floats(2, *space, channels, dtype=dtype)
    w = floats(*geometry.size, channels, 2 if depthwise else 5, dtype=dtype)
    y = (2, *geometry.counts(space), channels * 2 if depthwise else 5)
    if name.endswith("grad_x"):
        return [floats(*y, dtype=dtype), w], {"shape": x.shape, "geometry": geometry}
    if name.endswith("grad_w"):
        return [x, floats(*y, dtype=dtype)], {"geometry": geometry}
    return [x, w], {"geometry": geometry}


def operation(name):
    return {"x": "conv_dgrad", "w": "conv_wgrad"}.get(name[-1], "conv_fprop")


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("float16", 3e-3), ("bfloat16", 2e-2)])
def test_primitives_one_by_one(plans, name, geometry, dtype, rtol):
    arrays, params = arguments(name, geometry, dtype)
    wide = [a.astype("float64") for a in arrays]
    expected = registry[name].kernel(np, *wide, **params)
    found = bind(registry[name], *map(tf.constant, arrays), **params)
    uneven = any(before != after for before, after in geometry.padding)
    left = name.endswith("grad_w") and uneven  # wrong numbers come of some plans
    assert plans == ([] if left else [operation(name)]) and found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), expected, rtol, 10 * rtol)


def test_arrays_of_any_strides(plans, gpu):
    kernel = gpu.kernels["convolve"]
    (x, w), params = arguments("convolve", GEOMETRIES[0])
    expected = registry["convolve"].kernel(np, x, w, **params)
    for seen in (
        asarray(np.moveaxis(x, 3, 1).copy()).transpose((0, 2, 3, 1)),
        asarray(np.concatenate([x, x], -1))[..., :8],
        asarray(np.concatenate([x[:, :1], x], 1))[:, 1:],  # it does not start at 16 bytes
    ):
        found = kernel(None, seen, asarray(w), **params)
        np.testing.assert_allclose(found.get(), expected, 1e-5, 1e-5)
    assert len(plans) == 3


def test_gradients_of_filters_go_where_they_are_told(plans, gpu):
    for name in ("convolve_grad_w", "depthwise_convolve_grad_w"):
        (x, y), params = arguments(name, GEOMETRIES[2])
        expected = registry[name].kernel(np, x, y, **params)
        place = asarray(np.zeros(expected.shape, np.float32))
        out = gpu.kernels[name](None, asarray(x), asarray(y), out=place, **params)
        assert out is place
        np.testing.assert_allclose(place.get(), expected, 1e-5, 1e-5)


def test_what_is_left_to_windows_and_products(plans):
    def run(x, w, *args):
        tf.nn.conv2d(x, w, *args).numpy()

    run(floats(2, 5, 5, 3, dtype="float64"), floats(2, 2, 3, 4, dtype="float64"), 1, "SAME")
    run(floats(2, 5, 5, 3), floats(1, 1, 3, 4), 1, "VALID")  # the product alone
    run(floats(0, 5, 5, 3), floats(2, 2, 3, 4), 1, "VALID")
    assert not plans
    run(floats(2, 5, 5, 3), floats(1, 1, 3, 4), 2, "VALID")
    assert plans == ["conv_fprop"]
    for channels in (7, 8):  # fewer are slow
        plans.clear()
        (x, y), params = arguments("convolve_grad_w", GEOMETRIES[2], channels=channels)
        found = bind(registry["convolve_grad_w"], tf.constant(x), tf.constant(y), **params)
        expected = registry["convolve_grad_w"].kernel(np, x, y, **params)
        np.testing.assert_allclose(found.numpy(), expected, 1e-5, 1e-5)
        assert plans == ["conv_wgrad"] * (channels == 8)


# Sums of 288 products of float32 err by up to 1e-6, in whatever order; TF32 keeps 10 bits of each.
@pytest.mark.parametrize("on, least, most", [(False, 0, 1e-6), (True, 1e-6, 2e-3)])
def test_tf32_is_for_who_asks_for_it(plans, on, least, most):
    (x, w), params = arguments("convolve", GEOMETRIES[0], channels=32)
    wide = registry["convolve"].kernel(np, x.astype("float64"), w.astype("float64"), **params)
    precision = tf.keras.mixed_precision
    precision.enable_tensor_float_32_execution(on)
    try:
        found = bind(registry["convolve"], tf.constant(x), tf.constant(w), **params)
    finally:
        precision.enable_tensor_float_32_execution(False)
    error = np.abs(found.numpy() - wide).max() / np.abs(wide).max()
    assert plans and least <= error <= most


# Captured programs

needs_compiler = pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++")


def losses(x, w, v):
    """Two convolutions of a kind each, and the gradients of all there is."""
    with tf.GradientTape() as tape:
        tape.watch([x, w, v])
        y = tf.nn.depthwise_conv2d(tf.nn.conv2d(x, w, 2, "SAME"), v, (1, 1, 1, 1), "VALID")
        loss = tf.reduce_sum(y * y)
    return [y, *tape.gradient(loss, [x, w, v])]


@needs_compiler
@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("float16", 1e-2), ("bfloat16", 8e-2)])
def test_captured_convolutions_are_one_graph(plans, monkeypatch, dtype, rtol):
    arrays = [floats(*s, dtype=dtype) / 4 for s in [(2, 9, 9, 8), (3, 3, 8, 5), (2, 3, 5, 2)]]
    with tf.device("/CPU:0"):
        expected = [t.numpy() for t in losses(*[tf.constant(a.astype("float64")) for a in arrays])]
    bits = []
    for graphs in (True, False):
        monkeypatch.setattr(cupy_exec, "graphs", graphs)
        executor = cuda_executor(trace(losses, arrays).program, arrays)
        assert not any(node.opaque for node in executor.plan.nodes)
        plans.clear()
        for _ in range(3):
            found = [a.get() for a in executor(arrays)]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol, 10 * rtol)
        bits.append(b"".join(a.tobytes() for a in found))
        kinds = sorted([*("conv_fprop", "conv_dgrad", "conv_wgrad")] * 2)
        assert sorted(plans) == sorted(kinds * (2 if graphs else 4))  # warmed up, and captured
    assert bits[0] == bits[1]


@needs_compiler
def test_a_workspace_lies_beside_the_arrays(gpu):
    (x, w), params = arguments("convolve", GEOMETRIES[0])

    def fn(x, w):
        return bind(registry["convolve"], x * 2.0, w, **params)

    program = trace(fn, [x, w]).program
    executor = cuda_executor(program, [x, w])
    (node,) = [n for n in executor.plan.nodes if any(v.dtype == np.uint8 for v in n.mentions)]
    homes = executor.plan.homes
    spans = sorted((homes[v.buffer], homes[v.buffer] + v.buffer.nbytes) for v in node.mentions
                   if v.buffer in homes)  # fmt: skip
    assert [stop - start for start, stop in spans].count(1000) == 1
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))


@needs_compiler
def test_without_a_plan_windows_are_captured_too(plans, monkeypatch, gpu):
    def none(self):
        raise fake_cudnn.cudnnGraphNotSupportedError("nothing for these shapes")

    monkeypatch.setattr(fake_cudnn.pygraph, "check_support", none)
    arrays = [floats(*s) / 4 for s in [(2, 9, 9, 8), (3, 3, 8, 5), (2, 3, 5, 2)]]
    with tf.device("/CPU:0"):
        expected = [t.numpy() for t in losses(*map(tf.constant, arrays))]
    eager = [t.numpy() for t in losses(*map(tf.constant, arrays))]
    executor = cuda_executor(trace(losses, arrays).program, arrays)
    captured = [a.get() for a in executor(arrays)]
    for a, b, c in zip(expected, eager, captured, strict=True):
        np.testing.assert_allclose(b, a, 1e-4, 1e-4)
        np.testing.assert_allclose(c, a, 1e-4, 1e-4)
    assert not plans and set(gpu.dnn.declined.values()) == {"nothing for these shapes"}
    ((script, _),) = executor._idle[0]._scripts.values()
    assert sum("launch" in getattr(piece, "__qualname__", "") for piece in script) == 1


# Where it is not there


@pytest.mark.parametrize("how", ["not installed", "no cuDNN", "no handle", "not wanted"])
def test_without_it(plans, monkeypatch, gpu, how):
    def broken(*args):
        raise RuntimeError("cuDNN cannot be used here")

    if how == "not installed":
        monkeypatch.setitem(sys.modules, "cudnn", None)
    elif how == "not wanted":
        monkeypatch.setattr(gpu.dnn, "wanted", False)
    else:
        name = "backend_version" if how == "no cuDNN" else "create_handle"
        monkeypatch.setattr(sys.modules["cudnn"], name, broken)
    (x, w), params = arguments("convolve", GEOMETRIES[0])
    found = bind(registry["convolve"], tf.constant(x), tf.constant(w), **params).numpy()
    np.testing.assert_allclose(found, registry["convolve"].kernel(np, x, w, **params), 1e-5, 1e-5)
    assert not plans
    assert gpu.facts()["cudnn"] == ("9.28.0" if how == "no handle" else "none")


# What cuDNN would refuse


def test_the_stand_in_refuses_what_cudnn_would(gpu):
    (x, w), params = arguments("convolve", GEOMETRIES[0])
    job = cudnn.convolution("convolve", x.shape, w.shape, x.dtype, params).job
    assert gpu.dnn.takes(job)
    arrays = [asarray(a) for a in (x, np.moveaxis(w, 3, 0).copy(), np.zeros((2, 9, 8, 5), "f4"))]
    with pytest.raises(ValueError, match="no workspace"):
        gpu.dnn.run(job, arrays, None)
    room = asarray(np.zeros(1004, np.uint8))
    with pytest.raises(ValueError, match="no multiple of 16"):
        gpu.dnn.run(job, [arrays[0][:, :, :, 1:], *arrays[1:]], room)
    nchw = Layout((2, 3, 9, 8), (216, 72, 8, 1), "float32")
    other = job._replace(given=(("image", nchw), job.given[1]))
    assert not gpu.dnn.takes(other) and "beside each other" in gpu.dnn.declined[other]


def test_nothing_is_made_while_a_stream_is_captured(gpu):
    (x, w), params = arguments("convolve", GEOMETRIES[0])
    jobs = [
        cudnn.convolution("convolve", (n, *x.shape[1:]), w.shape, x.dtype, params).job
        for n in (1, 2, 3)
    ]
    stream = gpu.xp.cuda.Stream(non_blocking=True)

    def capturing(call, *args):
        with stream:
            stream.begin_capture()
            try:
                call(*args)
            finally:
                stream.end_capture()

    with pytest.raises(AssertionError, match="a handle is made"):
        capturing(gpu.dnn.takes, jobs[0])
    assert gpu.dnn.takes(jobs[1])
    with pytest.raises(AssertionError, match="a graph is made"):
        capturing(gpu.dnn.takes, jobs[2])
    capturing(gpu.dnn.takes, jobs[1])


def test_work_goes_to_the_current_stream(gpu):
    (x, w), params = arguments("convolve", GEOMETRIES[0])
    expected = registry["convolve"].kernel(np, x, w, **params)
    with gpu.stream("other") as stream:
        found = gpu.kernels["convolve"](None, asarray(x), asarray(w), **params)
        assert not np.allclose(found._data, expected)  # not done yet
        stream.synchronize()
        np.testing.assert_allclose(found._data, expected, 1e-5, 1e-5)


# Attention


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def half(request) -> Iterator[None]:
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(request.param)
    yield
    tf.keras.mixed_precision.set_global_policy(policy)


def trained(layer, **options):
    """Attention of a layer to its own input, and all gradients."""

    def fn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x, x, **options), tf.float32)
            loss = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]

    return fn


def compare(fn, *arrays):
    """Captured beside eager, to what half precision leaves."""
    eager = [t.numpy() for t in fn(*map(tf.constant, arrays))]
    executor = cuda_executor(trace(fn, arrays).program, arrays)
    for _ in range(2):
        found = [a.get() for a in executor(arrays)]
    scale = max(np.abs(a).max() for a in eager)
    for a, b in zip(found, eager, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        policy = tf.keras.mixed_precision.global_policy().name
        atol = (4e-2 if policy == "mixed_bfloat16" else 5e-3) * scale
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    return executor


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_keras_in_half_precision(plans, half, causal):
    layer = tf.keras.layers.MultiHeadAttention(4, 8, value_dim=16)
    x = floats(2, 10, 32)
    layer(x, x)
    compare(trained(layer, use_causal_mask=causal), x)
    assert plans == ["sdpa", "sdpa_backward"] * 2  # warmed up, and captured


@needs_compiler
def test_a_mask_that_is_the_same_at_every_run_is_a_bias(plans, half):
    layer = tf.keras.layers.MultiHeadAttention(2, 8)
    x, mask = floats(2, 6, 16), np.tri(6, dtype=bool)[None] & ~np.tri(6, k=-3, dtype=bool)
    layer(x, x)
    compare(trained(layer, attention_mask=mask), x)
    assert plans == ["sdpa", "sdpa_backward"] * 2


@needs_compiler
def test_queries_keys_and_values_that_lie_side_by_side(plans):
    """Their vectors are looked at where they are; what no plan reads is copied."""

    def fn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            q, k, v = tf.unstack(tf.transpose(tf.reshape(x, (2, 6, 3, 2, 8)), (2, 0, 3, 1, 4)))
            weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.3)
            y = tf.matmul(weights, tf.concat([v, v[..., ::-1]], -1)[..., 8:])
            loss = tf.reduce_sum(tf.sin(y))
        return y, tape.gradient(loss, x)

    compare(fn, floats(2, 6, 48, dtype="float16"))
    assert plans == ["sdpa", "sdpa_backward"] * 2


@needs_compiler
def test_attention_without_heads(plans):
    layer = tf.keras.layers.Attention(dtype="float16")
    compare(lambda x: [layer([x, x], use_causal_mask=True)], floats(3, 6, 8, dtype="float16"))
    assert plans == ["sdpa"] * 2


@needs_compiler
@pytest.mark.parametrize("why", ["float32", "size", "mask of the data", "dropout"])
def test_attention_that_cudnn_does_not_take(plans, why):
    options = {"dropout": 0.5} if why == "dropout" else {}
    dtype = "float32" if why == "float32" else "float16"
    size = 12 if why == "size" else 8
    layer = tf.keras.layers.MultiHeadAttention(2, size, dtype=dtype, **options)
    x = floats(2, 6, 16, dtype=dtype)
    layer(x, x)

    def fn(x):
        mask = x[:, None, :, 0] > -9.0 if why == "mask of the data" else None
        return [layer(x, x, attention_mask=mask, training=why == "dropout")]

    executor = cuda_executor(trace(fn, [x]).program, [x])
    executor([x])
    assert not plans
    if why != "dropout":
        compare(fn, x)
