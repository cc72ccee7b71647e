"""Laws of the tape over random expressions: un-broadcasting, Jacobians, linearity."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import distgrad as tf

many = settings(max_examples=60, deadline=None)

BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / (b * b + 2.0),
    "power": lambda a, b: (a * a + 1.0) ** (0.3 * tf.tanh(b)),
    "atan2": lambda a, b: tf.atan2(a, b * b + 1.0),
    "where": lambda a, b: tf.where(mask(a, b), a * b, b - a),
}
UNARY = {
    "negative": lambda a: -a,
    "sin": tf.sin,
    "tanh": tf.tanh,
    "weak": lambda a: 1.5 - a * 2,
    "square": lambda a: a**2,
    "transpose": tf.transpose,
}
REDUCE = {
    "sum": tf.reduce_sum,
    "mean": tf.reduce_mean,
    "logsumexp": tf.reduce_logsumexp,
    "prod": tf.reduce_prod,
}


def mask(a, b):
    """A fixed pattern of the shape of both."""
    shape = np.broadcast_shapes(tuple(a.shape), tuple(b.shape))
    return tf.constant(np.arange(int(np.prod(shape))).reshape(shape) % 3 == 0)


@st.composite
def expressions(draw, most=3):
    """(a function of a list of tensors, their arrays): shapes broadcast, with 0-d and 1 axes."""
    count = draw(st.integers(1, most))
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, max_side=3))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1.5, 1.5, size=shape) for shape in shapes.input_shapes]
    steps = draw(st.lists(st.integers(0, 2**16), min_size=1, max_size=6))

    def f(values):
        pick = [np.random.default_rng([seed, step]) for step in steps]
        live = list(values)
        for rng in pick:
            kind, a = rng.integers(5), live[rng.integers(len(live))]
            if kind <= 1:
                b = live[rng.integers(len(live))]
                name = rng.choice(list(BINARY))
                if not compatible(a, b):
                    a, b = tf.reduce_sum(a), b
                live.append(BINARY[name](a, b))
            elif kind == 2:
                live.append(UNARY[rng.choice(list(UNARY))](a))
            elif kind == 3:
                axes = [int(i) for i in range(a.ndim) if rng.integers(2)]
                axes = [i - a.ndim if rng.integers(2) else i for i in axes]
                axis = None if not axes else axes[0] if len(axes) == 1 else axes
                reduce = REDUCE[rng.choice(list(REDUCE))]
                live.append(reduce(a, axis=axis, keepdims=bool(rng.integers(2))))
            else:
                live.append(a[key_of(rng, tuple(a.shape))])
        total = functools.reduce(lambda s, v: s + tf.reduce_sum(tf.sin(v)), live, 0.0)
        return total, live[-1]

    return f, arrays


def compatible(a, b):
    try:
        np.broadcast_shapes(tuple(a.shape), tuple(b.shape))
    except ValueError:
        return False
    return True


def key_of(rng, shape):
    """An index that leaves at least one element: ints, slices of any step, None, ..."""
    key = []
    for size in shape:
        step = int(rng.choice([-2, -1, 1, 2]))
        choices = [int(rng.integers(-size, size)), slice(None, None, step), slice(0, 1), None]
        choice = choices[rng.integers(4)]
        key += [choice, slice(None)] if choice is None else [choice]
    if rng.integers(2):
        cut = int(rng.integers(len(key) + 1))
        key = [*key[:cut], ..., *key[cut:]]
    return tuple(key)


def taped(f, arrays, persistent=False):
    sources = [tf.constant(a) for a in arrays]
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(sources)
        total, last = f(sources)
    return tape, sources, total, last


@many
@given(expressions(), st.data())
def test_gradients_are_those_of_finite_differences(expression, data):
    """Along a random direction of all inputs; each gradient has the shape of its source."""
    f, arrays = expression
    tape, sources, total, _ = taped(f, arrays)
    grads = tape.gradient(total, sources, unconnected_gradients="zero")
    assert [g.shape for g in grads] == [a.shape for a in arrays]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    directions = [rng.normal(size=a.shape) for a in arrays]
    step = 1e-5

    def at(k):
        moved = [a + k * step * d for a, d in zip(arrays, directions, strict=True)]
        return float(f([tf.constant(m) for m in moved])[0])

    # Fourth order, so that the step may be large beside the rounding.
    slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    found = sum(np.sum(g.numpy() * d) for g, d in zip(grads, directions, strict=True))
    size = sum(np.sum(np.abs(g.numpy() * d)) for g, d in zip(grads, directions, strict=True))
    assert abs(found - slope) <= 1e-6 * (1.0 + size)


shapes = hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3, min_side=0)


@many
@given(shapes)
def test_unbroadcasting_sums_over_what_was_repeated(broadcast):
    """d sum(w * (x * y)) / dx = sum of w * y over the axes along which x was repeated."""
    one, two, three = broadcast.input_shapes
    rng = np.random.default_rng(0)
    x, y, w = (rng.integers(-9, 9, size=s).astype(float) for s in (one, two, three))
    tape, sources, z, _ = taped(lambda v: (v[0] * v[1] * w, None), [x, y])
    grads = tape.gradient(z, sources)
    for grad, own, other in zip(grads, (x, y), (y, x), strict=True):
        whole = np.broadcast_to(other * w, broadcast.result_shape)
        lead = whole.ndim - own.ndim
        axes = [i for i, n in enumerate(own.shape, lead) if n == 1 and whole.shape[i] != 1]
        exact = whole.sum(axis=(*range(lead), *axes), keepdims=True)
        np.testing.assert_array_equal(grad, exact.reshape(own.shape))


@many
@given(expressions(most=2))
def test_a_jacobian_has_the_shapes_of_target_and_source(expression):
    """`target.shape + source.shape`, and its sum over the target is the gradient."""
    f, arrays = expression
    tape, sources, _, last = taped(f, arrays, persistent=True)
    for jac, source in zip(tape.jacobian(last, sources, "zero"), sources, strict=True):
        assert jac.shape == (*last.shape, *source.shape)
        grad = tape.gradient(last, source, unconnected_gradients="zero")
        total = jac.numpy().sum(axis=tuple(range(last.ndim)))
        np.testing.assert_allclose(total, grad, rtol=1e-9, atol=1e-9)


@many
@given(expressions(), st.floats(-3, 3), st.floats(-3, 3))
def test_a_gradient_is_linear_in_output_gradients(expression, a, b):
    f, arrays = expression
    tape, sources, _, last = taped(f, arrays, persistent=True)
    rng = np.random.default_rng(0)
    u, v = (rng.normal(size=last.shape) for _ in range(2))

    def along(seed):
        grads = tape.gradient(last, sources, tf.constant(seed), "zero")
        return np.concatenate([g.numpy().ravel() for g in grads])

    of_u, of_v = along(u), along(v)
    scale = 1.0 + np.abs(of_u).max(initial=0) + np.abs(of_v).max(initial=0)
    np.testing.assert_allclose(along(a * u + b * v), a * of_u + b * of_v, atol=1e-11 * scale)


@many
@given(expressions())
def test_a_persistent_tape_gives_the_same_bits(expression):
    """As one that is not, as often as it is asked, for one source at a time or for all."""
    f, arrays = expression
    once, sources, total, _ = taped(f, arrays)
    expected = once.gradient(total, sources)
    tape, sources, total, _ = taped(f, arrays, persistent=True)
    for _ in range(2):
        alone = [tape.gradient(total, source) for source in sources]
        for grads in (tape.gradient(total, sources), alone):
            for found, exact in zip(grads, expected, strict=True):
                assert (found is None) == (exact is None)
                if exact is not None:
                    np.testing.assert_array_equal(found, exact)


@many
@given(expressions(most=2))
def test_forward_mode_agrees_with_reverse_mode(expression):
    """u . (J v) = (u J) . v"""
    f, arrays = expression
    rng = np.random.default_rng(0)
    tape, sources, _, last = taped(f, arrays)
    u, v = rng.normal(size=last.shape), [rng.normal(size=a.shape) for a in arrays]
    rows = tape.gradient(last, sources, tf.constant(u), "zero")
    with tf.autodiff.ForwardAccumulator(sources, [tf.constant(d) for d in v]) as acc:
        _, last = f(sources)
    column = acc.jvp(last, "zero").numpy()
    left, parts = np.sum(u * column), [np.sum(r.numpy() * d) for r, d in zip(rows, v, strict=True)]
    size = 1.0 + np.abs(u * column).sum()
    size += sum(np.abs(r.numpy() * d).sum() for r, d in zip(rows, v, strict=True))
    assert abs(left - sum(parts)) <= 1e-11 * size
