"""Generated kernels: how far from NumPy, special values, layouts, the cache, and updates."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.captured import Captured
from distgrad.compile.llvm import engine, rows
from distgrad.compile.numpy_exec import numpy_executor
from distgrad.compile.passes import fuse, simplify
from distgrad.core.primitive import bind
from distgrad.ops import optim
from distgrad.testing.primitives import built_in, samples_of

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")

# Imported late, so that a machine without llvmlite collects this file.
from distgrad.compile.cpu_exec import cpu_executor  # noqa: E402
from distgrad.compile.llvm.loops import supported  # noqa: E402
from distgrad.compile.llvm.updates import install  # noqa: E402

RNG = np.random.default_rng(0)


def executors(fn, *arrays):
    program = trace(fn, arrays).program
    assert program is not None
    return cpu_executor(program, arrays), numpy_executor(program, arrays)


def ulps(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance from the exact value, in the spacing of float32 there."""
    wanted = exact.astype(np.float32)
    assert (np.isnan(found) == np.isnan(wanted)).all()
    infinite = np.isinf(wanted)
    assert (found[infinite] == wanted[infinite]).all()
    ok = np.isfinite(wanted)
    error = np.abs(found[ok].astype(np.float64) - exact[ok])
    return float((error / np.spacing(np.abs(wanted[ok])).astype(np.float64)).max())


def all_magnitudes(count: int = 1_000_000) -> np.ndarray:
    bits = RNG.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38], np.float32)
    near = RNG.normal(size=count).astype(np.float32) * 3
    wide = np.linspace(-110, 95, count, dtype=np.float32)
    return np.concatenate(
        [bits, special, near, wide, np.linspace(0.4, 2.5, count, dtype=np.float32)]
    )


def _erf(x):
    import scipy.special

    return scipy.special.erf(x)


def natives(executor):
    """How many generated functions a program calls."""
    return sum(hasattr(step.fn, "bound") for step in executor.schedule.steps)


# The bounds that the functions state. NumPy's own float32 ones are up to 3.6 off.
BOUNDS = {
    "exp": (tf.exp, np.exp, 1.1),
    "expm1": (tf.math.expm1, np.expm1, 2.0),
    "log": (tf.math.log, np.log, 1.5),
    "log1p": (tf.math.log1p, np.log1p, 2.5),
    "tanh": (tf.tanh, np.tanh, 2.0),
    "erf": (tf.math.erf, _erf, 1.5),
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_are_within_their_bounds_at_all_magnitudes(name):
    fn, exact, bound = BOUNDS[name]
    x = all_magnitudes()
    generated, _ = executors(fn, x)
    assert natives(generated) == 1
    assert ulps(generated([x])[0], exact(x.astype(np.float64))) <= bound


# Functions of the C library, or with rules for special values, that have no generated form.
LEFT_TO_NUMPY = {
    *("cos", "sin", "tan", "cosh", "sinh"),
    *("acos", "asin", "atan", "acosh", "asinh", "atanh", "atan2"),
    *("erfc", "lgamma", "power", "sign"),
}
ELEMENTWISE = [n for n, p in built_in().items() if p.expr is not None and not p.effect]
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -2.5, 7.0], np.float32)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_expressions_are_the_kernels(name):
    """Every ``expr`` against its kernel on all pairs of special values; nan stays nan."""
    primitive = built_in()[name]
    given = samples_of(primitive)[0]
    grids = np.meshgrid(*[SPECIAL] * len(primitive.arg_names), indexing="ij")
    arrays = []
    for sampled, grid in zip(given.args, grids, strict=True):
        is_bool = isinstance(sampled, np.ndarray) and sampled.dtype == np.bool_
        arrays.append(grid > 0 if is_bool else grid)
    params = {**primitive.defaults, **given.params}

    def fn(*tensors):
        return bind(primitive, *tensors, **params)

    program = simplify(trace(fn, arrays).program)
    assert supported(program.instructions[0]) == (name not in LEFT_TO_NUMPY)
    generated, oracle = executors(fn, *arrays)
    assert natives(generated) == (name not in LEFT_TO_NUMPY)
    (found,), (wanted,) = generated(arrays), oracle(arrays)
    assert found.dtype == wanted.dtype
    # Not only relative: 1 + tanh(x) cancels near -1, where both are off by a rounding of 1.
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 4.0, 0.5, -1.0, -2.0, -3.0, 1.5, 0.0])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_small_powers_are_products(exponent):
    x = np.concatenate([SPECIAL, RNG.normal(size=500).astype(np.float32)])
    generated, oracle = executors(lambda x: bind(built_in()["power"], x, exponent), x)
    assert natives(generated) == (exponent not in (1.5, 0.0))
    np.testing.assert_allclose(generated([x])[0], oracle([x])[0], rtol=5e-7)


def test_which_primitives_have_a_generated_form():
    """The list shrinks only by intent."""
    x = RNG.normal(size=(2, 3)).astype(np.float32)

    def fn(x):
        a = tf.nn.relu(x) + tf.tanh(x) * tf.sigmoid(x) - tf.math.softplus(x) / tf.exp(x)
        b = tf.where(x > 0.5, tf.maximum(x, 0.1), tf.minimum(a, x)) + tf.square(x)
        c = tf.nn.gelu(b, approximate=False) + tf.nn.gelu(b) + tf.nn.silu(a) + tf.nn.elu(a)
        d = tf.math.log1p(tf.abs(c)) + tf.sqrt(tf.abs(c)) + tf.math.rsqrt(1.0 + c * c)
        return d + tf.clip_by_value(c, -0.5, 0.5) + tf.nn.relu6(c) + tf.nn.leaky_relu(-c)

    generated, oracle = executors(fn, x)
    assert generated.source == "def run(x0):\n    a0[...] = x0\n    n0()\n    return\n"
    np.testing.assert_allclose(generated([x])[0], oracle([x])[0], rtol=1e-5)


def test_exact_operations_have_the_bits_of_numpy():
    x, y = (RNG.normal(size=(7, 33)).astype(np.float32) for _ in range(2))

    def fn(x, y):
        a = (x * y + 0.1) / (tf.abs(y) + 3.0) - tf.sqrt(tf.abs(x))
        return a, tf.nn.relu(a) * 2.0, a > y, tf.where(a > y, a, -y)

    for dtype in (np.float32, np.float64):
        arrays = [x.astype(dtype), y.astype(dtype)]
        generated, oracle = executors(fn, *arrays)
        assert natives(generated) == 1
        for a, b in zip(generated(arrays), oracle(arrays), strict=True):
            assert a.tobytes() == b.tobytes() and a.dtype == b.dtype


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 6), (6,)],
        [(4, 6), (4, 1)],
        [(4, 6), ()],
        [(3, 4, 6), (4, 6)],
        [(3, 4, 6), (3, 1, 1)],
        [(5, 1, 1, 7), (5, 1, 1, 1)],
        [(1,), (1, 1)],
        [(4, 1), (1, 6)],  # no two loops for these: NumPy's own
        [(3, 4, 6), (3, 1, 6)],
    ],
)
def test_broadcasting(shapes):
    arrays = [RNG.normal(size=shape).astype(np.float32) for shape in shapes]
    generated, oracle = executors(lambda x, y: (x + y) * 2.0, *arrays)
    for a, b in zip(generated(arrays), oracle(arrays), strict=True):
        assert a.tobytes() == b.tobytes() and a.shape == b.shape


def test_transposed_and_whole_numbers_run_on_numpy():
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    n = np.arange(24, dtype=np.int32).reshape(4, 6)

    def fn(x, n):
        return tf.exp(tf.transpose(x)) + 1.0, n * 2 + 1, tf.cast(n, tf.float32) * x

    generated, oracle = executors(fn, x, n)
    for a, b in zip(generated([x, n]), oracle([x, n]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_training_step_stays_close_to_the_oracle():
    """After 20 steps of Adam, losses agree to 1e-4 (rounding grows through training)."""
    losses = []
    for make in (cpu_executor, numpy_executor):
        rng = np.random.default_rng(1)
        tf.random.set_seed(2)
        shapes = [(20, 16), (16,), (16, 4), (4,)]
        v = [tf.Variable((rng.normal(size=s) * 0.3).astype(np.float32)) for s in shapes]
        opt = tf.keras.optimizers.Adam(0.01)
        x, y = rng.normal(size=(32, 20)).astype(np.float32), rng.integers(0, 4, 32)

        def step(x, y, v=v, opt=opt):
            with tf.GradientTape() as tape:
                h = tf.nn.dropout(tf.tanh(tf.matmul(x, v[0]) + v[1]), 0.2)
                logits = tf.matmul(h, v[2]) + v[3]
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
                loss = tf.reduce_mean(each)
            opt.apply_gradients(zip(tape.gradient(loss, v), v, strict=True))
            return loss

        run = Captured(step, strict=True, make_executor=make)
        losses.append([float(run(tf.constant(x), tf.constant(y))) for _ in range(20)])
        assert len(run.executors) == 1
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


# The cache of object code


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has made no kernel yet."""
    monkeypatch.setattr(engine, "_known", {})
    monkeypatch.setattr(rows, "_known", {})


def test_object_code_is_kept_and_a_bad_file_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "cache_folder", lambda: tmp_path / "kernels")
    forget(monkeypatch)
    x = RNG.normal(size=17).astype(np.float32)

    def fn(x):
        return tf.exp(x) * 1.25 + 0.75

    wanted = executors(fn, x)[0]([x])[0]
    (kept,) = (tmp_path / "kernels").iterdir()
    stamp = kept.stat().st_mtime_ns
    forget(monkeypatch)
    assert executors(fn, x)[0]([x])[0].tobytes() == wanted.tobytes()
    assert kept.stat().st_mtime_ns == stamp
    for damage in (b"", kept.read_bytes()[: kept.stat().st_size // 2], b"no object code at all"):
        kept.write_bytes(damage)
        forget(monkeypatch)
        assert executors(fn, x)[0]([x])[0].tobytes() == wanted.tobytes()
    assert kept.stat().st_size > 300


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(engine, "cache_folder", lambda: tmp_path / "file" / "kernels")
    forget(monkeypatch)
    x = RNG.normal(size=19).astype(np.float32)
    np.testing.assert_array_equal(executors(lambda x: x * 3.0, x)[0]([x])[0], x * 3)


# Groups alike


@pytest.fixture
def written(monkeypatch):
    """The kernels of rows that are written, in a process that has made none yet."""
    forget(monkeypatch)
    written, text = [], rows.Kernel.text
    monkeypatch.setattr(rows.Kernel, "text", lambda self: written.append(self) or text(self))
    return written


def test_groups_that_do_the_same_are_written_once(written):
    x = RNG.normal(size=(4, 4)).astype(np.float32)

    def fn(x):
        for _ in range(5):
            x = tf.matmul(tf.exp(x) * 0.5 - x, x)
        return x

    executors(fn, x)[0]([x])
    assert len(written) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x * 0.0, lambda x: x * -0.0),
        (lambda x: x - tf.exp(x), lambda x: tf.exp(x) - x),
        (lambda x: tf.nn.leaky_relu(x, 0.1), lambda x: tf.nn.leaky_relu(x, 0.2)),
        (lambda x: x * tf.identity(x), lambda x: x * x[0]),
        (lambda x: tf.reduce_max(x, 1), lambda x: tf.reduce_min(x, 1)),
    ],
)
def test_groups_that_differ_have_kernels_of_their_own(written, one, other):
    x = RNG.normal(size=(4, 4)).astype(np.float32)
    together = [executors(fn, x)[0]([x])[0] for fn in (one, other)]
    assert len(written) == 2
    rows._known.clear()
    alone = [executors(fn, x)[0]([x])[0] for fn in (one, other)]
    assert [each.tobytes() for each in together] == [each.tobytes() for each in alone]


# Optimizer updates


UPDATES = {
    "sgd": (0, 1, {}),
    "momentum": (1, 1, {"momentum": 0.9, "nesterov": False}),
    "momentum, nesterov": (1, 1, {"momentum": 0.9, "nesterov": True}),
    "adam": (2, 1, {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
    "amsgrad": (3, 1, {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
    "adagrad": (1, 1, {"epsilon": 1e-7}),
    "decay": (0, 0, {}),
    "scale": (0, 0, {}),
    "clip": (0, 0, {}),
    "average": (0, 1, {"momentum": 0.99}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1 << 14, (1 << 14) + 13])
@pytest.mark.parametrize("name", list(UPDATES))
def test_updates_have_the_bits_of_their_kernels(name, size, dtype):
    install()
    primitive = getattr(optim, f"{name.split(',')[0]}_update")
    states, given, params = UPDATES[name]
    start = [RNG.normal(size=size).astype(dtype) for _ in range(1 + states)]
    start[1:] = [a * a for a in start[1:]]
    if name == "clip":
        start[0][5] = np.nan
    rest = [RNG.normal(size=size).astype(dtype) for _ in range(given)]
    rates = [] if name == "average" else [dtype(0.01)]
    wanted = primitive.kernel(np, *start, *rest, *rates, **params)
    found = tuple(a.copy() for a in start)
    assert primitive.native(found, (*found, *rest, *rates), params)
    for a, b in zip(found, wanted, strict=True):
        assert a.tobytes() == b.tobytes()


def test_adam_declines_what_it_does_not_know():
    install()
    n = 1 << 15
    p, m, s, g = (np.ones(n, np.float32) for _ in range(4))
    params = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    take = optim.adam_update.native
    assert not take((p, m, s), (p, m, s, p, np.float32(0.1)), params)  # the gradient is p itself
    assert not take((p, m, s), (p, m, s, np.ones(2 * n, np.float32)[::2], np.float32(0.1)), params)
    assert not take((p, m, s), (p, m, s, g.astype(np.float64), np.float32(0.1)), params)
    half = [a.astype(np.float16) for a in (p, m, s, g)]
    assert not take(tuple(half[:3]), (*half, np.float16(0.1)), params)
    np.testing.assert_array_equal(p, 1)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_prepared_update_takes_other_gradients_and_rates(size):
    install()
    rng = np.random.default_rng(0)
    state = [rng.random(size, dtype=np.float32) for _ in range(3)]
    expected = [a.copy() for a in state]
    params = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    for rate in (0.1, np.float32(0.01), np.asarray(0.5, np.float32)):
        gradient = rng.normal(size=size).astype(np.float32)
        assert optim.adam_update.native(tuple(state), (*state, gradient, rate), params)
        rounded = np.float32(rate)
        optim.adam_update.kernel(np, *expected, gradient, rounded, **params, out=tuple(expected))
        assert [a.tobytes() for a in state] == [a.tobytes() for a in expected]
    apart = np.concatenate([state[0], state[0]])[: size + 1][1:]
    assert not optim.adam_update.native(tuple(state), (*state, state[1], 0.1), params)
    assert optim.adam_update.native(tuple(state), (*state, apart, 0.1), params)


def test_updates_of_several_arrays_are_those_of_each():
    install()
    rng, params = np.random.default_rng(0), {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    states = [[rng.random(size, dtype=np.float32) for _ in range(3)] for size in (1, 40, 1000)]
    expected = [[a.copy() for a in state] for state in states]
    for rate in (0.1, 0.01):
        gradients = [rng.normal(size=len(s[0])).astype(np.float32) for s in states]
        calls = [
            (tuple(s), (*s, g, np.float32(rate))) for s, g in zip(states, gradients, strict=True)
        ]
        assert optim.adam_update.native_each(calls, params)
        for state, gradient in zip(expected, gradients, strict=True):
            out = tuple(state)
            optim.adam_update.kernel(np, *out, gradient, np.float32(rate), **params, out=out)
        for state, wanted in zip(states, expected, strict=True):
            assert [a.tobytes() for a in state] == [a.tobytes() for a in wanted]
    first, (out, args) = calls[0], calls[2]
    for gradient in (args[0], args[3].astype(np.float64), args[3][:-1]):  # the last cannot be taken
        assert not optim.adam_update.native_each([first, (out, (*out, gradient, 0.1))], params)
    assert [a.tobytes() for a in states[0]] == [a.tobytes() for a in expected[0]]


def test_the_predicate_splits_groups():
    program = trace(lambda x: tf.exp(tf.sin(x)) + 1.0, [np.ones(4, np.float32)]).program
    names = [i.name for i in fuse(simplify(program), supported, smallest=1).instructions]
    assert names == ["sin", "fused"]
