"""Scalar expressions as CUDA C++, and the hand-written kernels, compiled for the CPU with g++."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from distgrad.backend import cuda_kernels, cuda_rows, cuda_source
from distgrad.backend.cuda_kernels import Kernels
from distgrad.backend.cuda_launch import OPTIONS, source
from distgrad.backend.cuda_rows import Rows
from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dtypes import as_dtype
from distgrad.testing import cuda_on_cpu, fake_cupy, process, standin
from distgrad.testing.primitives import built_in, samples_of

pytestmark = pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++")

PRIMITIVES = built_in()
LEFT_OUT = {"select", "power", "sign"}  # a condition among the arguments; no function of CUDA


def runs_as_cuda(p) -> bool:
    try:
        cuda_source.expression(p.expr, (*p.arg_names, *p.param_names))
    except cuda_source.Unsupported:
        return False
    return True


WITH_EXPR = [p for p in PRIMITIVES.values() if p.expr]
CASES = [
    pytest.param(p, s, id=f"{p.name}-{i}")
    for p in WITH_EXPR
    if runs_as_cuda(p) and p.name not in LEFT_OUT
    for i, s in enumerate(samples_of(p))
    if {np.dtype(a.dtype).kind for a in s.args if isinstance(a, np.ndarray)} == {"f"}
]


def test_nearly_every_expression_is_written():
    refused = {p.name for p in WITH_EXPR if not runs_as_cuda(p)}
    comparisons = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "is_nan"}
    assert refused <= comparisons | {"power", "sign", "pow"}, refused


def test_numbers_have_the_type_of_the_kernel():
    text = cuda_source.operation("where(x > 0, x, alpha * 0.1)", ("x", "alpha"))
    assert text == "result = ((x > T(0.0)) ? x : (alpha * T(0.1)));"


@pytest.mark.parametrize("expr", ["x[0]", "open(x)", "x.y", "x < 0", "atan2(x)", "x if x else y"])
def test_what_is_no_scalar_expression_is_refused(expr):
    with pytest.raises(cuda_source.Unsupported):
        cuda_source.expression(expr, ("x", "y"))


def elementwise(dtype: str) -> str:
    """One kernel for each expression, in one source: a compiler takes half a second to start."""
    parts = [f"typedef {dtype} T;"]
    for p in {c.values[0].name: c.values[0] for c in CASES}.values():
        names = (*p.arg_names, *p.param_names)
        operation = cuda_source.operation(p.expr, names)
        given = ", ".join(f"const T *in_{n}" for n in names)
        loads = " ".join(f"const T {n} = in_{n}[at];" for n in names)
        parts.append(
            f'extern "C" __global__ void run_{p.name}({given}, T *out, long long size) {{\n'
            f"for (long long at = 0; at < size; at++) {{ {loads} T result; {operation} "
            f"out[at] = result; }} }}"
        )
    return "\n".join(parts)


@pytest.mark.parametrize("type_, dtype", [("float", np.float32), ("double", np.float64)])
def test_an_expression_gives_what_the_kernel_gives(type_, dtype):
    source_ = elementwise(type_)
    for case in CASES:
        p, s = case.values
        params = {**p.defaults, **s.params}
        args = [np.asarray(a, dtype) for a in s.args]
        with np.errstate(all="ignore"):
            expected = np.asarray(p.kernel(np, *args, **params))
        numbers = [np.asarray(params[n], dtype) for n in p.param_names]
        given = np.broadcast_arrays(*args, *numbers, expected)[:-1]
        arrays = [np.array(a, order="C") for a in given]
        found = np.empty(expected.shape, dtype)
        size = np.int64(found.size)
        cuda_on_cpu.launch(source_, f"run_{p.name}", 1, 1, [*arrays, found, size])
        rtol = 1e-5 if dtype is np.float32 else 1e-12
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol, err_msg=case.id)


# The kernels of kernels.cu and rows.cu


@pytest.fixture(params=["float32", "float64"])
def dtype(request) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def kernels() -> Kernels:
    return Kernels(fake_cupy.modules()["cupy"])


def on_device(*arrays):
    return [standin.asarray(a) for a in arrays]


def compared(kernels, name, args, dtype, exact=False, **params):
    """What the CUDA kernel gives beside the kernel over NumPy."""
    p = PRIMITIVES[name]
    args = [a.astype(dtype) if a.dtype.kind == "f" else a for a in args]

    def plain(*given, **words):
        raise AssertionError("the CUDA kernel did not take them")

    found = kernels.by_primitive[name](plain, *on_device(*args), **params).get()
    expected = p.kernel(np, *args, **params)
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        rtol = 2e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


SHAPES = [(1, 1), (3, 10), (2, 5, 33), (4, 300), (2, 1025)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows(kernels, dtype, shape):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, *shape)) * 3
    labels = rng.integers(0, shape[-1], shape[:-1])
    last = len(shape) - 1
    compared(kernels, "softmax_along", [x], dtype, axis=last)
    compared(kernels, "sparse_cross_entropy", [x, labels], dtype)
    compared(kernels, "sparse_cross_entropy", [x, (labels - shape[-1]).astype(np.int32)], dtype)
    compared(kernels, "sparse_cross_entropy_grad", [dy[..., 0], x, labels], dtype)
    compared(kernels, "standardize", [x], dtype, axis=(last,), epsilon=1e-3)
    compared(kernels, "standardize_grad", [dy, x], dtype, axis=(last,), epsilon=1e-3)
    both = (last - 1, last)
    compared(kernels, "standardize", [x], dtype, axis=both, epsilon=1e-3)


def test_nan_and_labels_outside_stay_visible(kernels, dtype):
    x = np.zeros((3, 4), dtype)
    x[1, 2] = np.nan
    labels = np.array([0, 0, 4])
    call = kernels.by_primitive["sparse_cross_entropy"]
    assert np.isnan(call(None, *on_device(x, labels)).get()).tolist() == [False, True, True]
    found = kernels.by_primitive["softmax_along"](None, *on_device(x), axis=1).get()
    assert np.isnan(found).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("start", [0, 1])  # on a word of memory, and beside one
def test_adam_has_the_bits_of_the_cpu(kernels, dtype, start):
    rng = np.random.default_rng(1)
    p, m, s, g = (np.abs(a) for a in rng.normal(size=(4, 1003)).astype(dtype))
    words = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    expected = PRIMITIVES["adam_update"].kernel(np, p, m, s, g, dtype.type(1e-3), **words)
    there = [a[start:] for a in on_device(*(np.pad(a, (start, 0)) for a in (p, m, s, g)))]
    out = tuple(there[:3])
    call = kernels.by_primitive["adam_update"]
    found = call(None, *there, dtype.type(1e-3), **words, out=out)
    for a, b, c in zip(found, out, expected, strict=True):
        assert a is b
        np.testing.assert_array_equal(a.get(), c)
    copies = call(None, *on_device(p, m, s, g), dtype.type(1e-3), **words)
    np.testing.assert_array_equal(copies[0].get(), expected[0])


@pytest.fixture(params=["all indices", "lists"])
def rows(request, monkeypatch) -> Rows:
    if request.param == "lists":
        monkeypatch.setattr(cuda_rows, "LISTED", -1)
    return Rows(fake_cupy.modules()["cupy"])


ROWS_OF = ["float32", "float64", "float16", "bfloat16", "int8", "int64", "uint64", "complex64"]


def numbers(rng, shape, dtype):
    """Numbers whose sums are exact in every dtype, so that any order gives the same."""
    return rng.integers(0, 4, shape).astype(as_dtype(dtype).numpy_dtype)


@pytest.mark.parametrize("dtype", ROWS_OF)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_are_added_by_their_index(rows, dtype, axis):
    rng = np.random.default_rng(2)
    shape = [2, 3, 4]
    shape[axis] = 7
    indices = rng.integers(-7, 6, (4, 90))
    g = numbers(rng, (*shape[:axis], *indices.shape, *shape[axis + 1 :]), dtype)
    expected = np.zeros(shape, g.dtype)
    np.add.at(expected, (*[slice(None)] * axis, indices), g)
    words = {"shape": tuple(shape), "axis": axis}
    found = rows.by_primitive["take_grad"](None, *on_device(g, indices), **words)
    assert found.dtype == g.dtype
    np.testing.assert_array_equal(found.get(), expected)


def test_rows_are_added_in_order(rows, dtype):
    rng = np.random.default_rng(2)
    indices = rng.integers(0, 6, (4, 9))
    g = rng.normal(size=(4, 9, 3)).astype(dtype)
    expected = PRIMITIVES["take_grad"].kernel(np, g, indices, shape=(7, 3), axis=0)
    found = rows.by_primitive["take_grad"](None, *on_device(g, indices), shape=(7, 3), axis=0)
    np.testing.assert_array_equal(found.get(), expected)


def test_rows_that_many_or_none_belong_to_are_added_in_order(rows, dtype):
    rng = np.random.default_rng(5)
    indices = np.where(rng.random(1500) < 0.8, 3, rng.integers(-300, 300, 1500))  # 3: about 1,200
    g = rng.normal(size=(1500, 2)).astype(dtype)
    expected = PRIMITIVES["take_grad"].kernel(np, g, indices, shape=(300, 2), axis=0)
    assert not expected.any(axis=1).all()
    found = rows.by_primitive["take_grad"](None, *on_device(g, indices), shape=(300, 2), axis=0)
    np.testing.assert_array_equal(found.get(), expected)


@pytest.mark.parametrize("dtype", [d for d in ROWS_OF if d not in ("uint64", "complex64")])
@pytest.mark.parametrize("name", ["put_max", "put_min"])
def test_the_extremes_of_rows(rows, dtype, name):
    rng = np.random.default_rng(3)
    dtype = as_dtype(dtype).numpy_dtype
    x, updates = (rng.normal(size=size) * 40 for size in ((5, 3), (400, 3)))
    x, updates, places = x.astype(dtype), updates.astype(dtype), rng.integers(-5, 4, 400)
    if dtype.kind != "i":
        updates[7, 1] = np.nan
    expected = PRIMITIVES[name].kernel(np, x, updates, places)
    found = rows.by_primitive[name](None, *on_device(x, updates, places))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.get().astype(float), expected.astype(float))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int16"])
def test_values_are_added_at_positions(rows, dtype):
    rng = np.random.default_rng(4)
    array, values = numbers(rng, (3, 4, 2), dtype), numbers(rng, (6, 2), dtype)
    positions = rng.integers(0, 3, (2, 6))
    expected = array.copy()
    np.add.at(expected, tuple(positions), values)
    there = standin.asarray(array)
    rows.add_at(there, tuple(on_device(*positions)), standin.asarray(values))
    np.testing.assert_array_equal(there.get(), expected)


@pytest.mark.parametrize("shape", [(), (1,), (8,), (1031,), (33, 65)], ids=str)
def test_uniform_numbers_are_those_of_numpy(kernels, dtype, shape):
    key = np.array([3, 2**63 + 5, 7, 11], np.uint64)
    found = kernels.uniform(key, shape, dtype).get()
    np.testing.assert_array_equal(found, numpy_backend.random_uniform(key, shape, dtype))


def test_what_the_kernels_do_not_take_goes_to_the_plain_ones(kernels):
    x = standin.asarray(np.zeros((2, 3), np.float16))
    for name, args, params in [
        ("softmax_along", (x,), {"axis": 1}),
        ("softmax_along", (standin.asarray(np.zeros((2, 3), np.float32)),), {"axis": 0}),
        ("standardize", (x,), {"axis": (1,), "epsilon": 1e-3}),
        ("sparse_cross_entropy", (x, standin.asarray(np.zeros(2, np.int64))), {}),
    ]:
        assert kernels.by_primitive[name](lambda *a, **k: "plain", *args, **params) == "plain"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.timeout_s(300)
def test_nvcc_compiles_the_kernels(tmp_path, dtype):
    """CUDA's own compiler takes the texts: that needs no GPU."""
    entries = {
        cuda_kernels.SOURCE: [
            *("uniform", "adam", "adam_each", "softmax", "cross_entropy_grad", "standardize"),
        ],
        cuda_rows.SOURCE: ["fill_lists", "add_rows", "largest_rows", "smallest_rows"],
    }
    for file, names in entries.items():
        path = tmp_path / file
        path.write_text(source(file, dtype))
        command = ["nvcc", "-ptx", *OPTIONS, str(path), "-o", str(path.with_suffix(".ptx"))]
        done = process.run(command, timeout=140)
        assert done.returncode == 0, done.stderr
        text = path.with_suffix(".ptx").read_text()
        for name in names:
            assert f".entry {name}(" in text
        for name in ("adam", "adam_each"):
            assert "fma.rn" not in text.partition(f".entry {name}(")[2].partition(".entry")[0]
