"""The names of TensorFlow: all there, loaded when they are used, and what asks about modes."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing import process

MODULES = (
    "bitwise",
    "dtypes",
    "errors",
    "image",
    "linalg",
    "lookup",
    "math",
    "nn",
    "random",
    "signal",
    "train",
)
RARE = ("distgrad.image", "distgrad.signal", "distgrad.ops.factors", "distgrad.ops.fourier")


@pytest.mark.parametrize("module", ["", *MODULES])
def test_every_name_that_is_listed_is_there(module):
    found = getattr(tf, module) if module else tf
    names = dir(found) if not module else found.__all__
    assert len(names) > 5
    for name in names:
        assert getattr(found, name, self_made := None) is not self_made or name == "newaxis", name


def test_what_few_scripts_need_is_loaded_when_they_use_it():
    program = (
        "import sys, distgrad as tf\n"
        f"rare = {RARE!r}\n"
        "print([name for name in rare if name in sys.modules])\n"
        "tf.image.ResizeMethod, tf.signal.fft, tf.linalg.lu\n"
        "print([name for name in rare if name not in sys.modules])\n"
    )
    with process.Command([sys.executable, "-c", program]) as command:
        assert command.wait().stdout.split() == ["[]", "[]"]


def test_the_scopes_around_have_a_name():
    assert tf.get_current_name_scope() == ""
    with tf.name_scope("a"), tf.name_scope("b"):
        assert tf.get_current_name_scope() == "a/b"
    assert tf.get_current_name_scope() == ""


def test_operations_run_at_once_but_while_a_function_is_traced():
    seen = []

    @tf.function(jit_compile="strict")
    def step(x):
        seen.append((tf.is_symbolic_tensor(x), tf.get_static_value(x)))
        return x + 1

    step(tf.constant(1.0))
    assert (True, None) in seen
    assert tf.executing_eagerly() and not tf.is_symbolic_tensor(tf.constant(1))
    assert tf.get_static_value(tf.constant([1, 2])).tolist() == [1, 2]
    with tf.init_scope():
        assert tf.no_op() is None and tf.group(tf.constant(1)) is None


def test_one_thing_has_two_names():
    assert tf.autodiff.GradientTape is tf.GradientTape
    for name in ("approx_max_k", "approx_min_k"):
        assert getattr(tf.math, name) is getattr(tf.nn, name) and name in dir(tf.math)


def test_the_logger_is_that_of_the_library():
    assert tf.get_logger() is logging.getLogger("distgrad")
    assert tf.timestamp().dtype == tf.float64


def test_shapes_broadcast():
    static = tf.broadcast_static_shape(tf.TensorShape([1, 3]), tf.TensorShape([2, 1]))
    for one, other, both in (
        ([None, 3], [2, 1], [2, 3]),
        ([None, 1], [5], [None, 5]),
        ([None], [1], [None]),
        ([None, 2], None, None),
    ):
        found = tf.broadcast_static_shape(tf.TensorShape(one), tf.TensorShape(other))
        assert found.rank is None if both is None else found.as_list() == both
    assert type(static) is tf.TensorShape and static == [2, 3]
    with pytest.raises(ValueError, match="broadcast"):
        tf.broadcast_static_shape([2], [3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="broadcast"):
        tf.broadcast_dynamic_shape([2], tf.constant([3]))


def test_eigenvectors_of_any_matrix():
    x = np.random.default_rng(1).normal(size=(2, 4, 4)).astype(np.float32)
    e, v = tf.linalg.eig(x)
    assert e.dtype == v.dtype == tf.complex64
    np.testing.assert_allclose(x @ v.numpy(), v.numpy() * e.numpy()[:, None], atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tf.linalg.lu(np.ones((2, 3))),
        lambda: tf.linalg.tridiagonal_solve(np.ones((2, 3)), np.ones(3)),
        lambda: tf.linalg.tridiagonal_solve(np.zeros((3, 3)), np.ones(3)),
        lambda: tf.linalg.tridiagonal_matmul(np.ones((3, 3)), np.ones((3, 1)), "diagonals"),
        lambda: tf.nn.space_to_depth(np.ones((1, 3, 4, 1)), 2),
        lambda: tf.nn.depth_to_space(np.ones((1, 2, 2, 3)), 2),
        lambda: tf.space_to_batch(np.ones((1, 3, 4)), [2, 2], [[0, 0], [0, 0]]),
        lambda: tf.batch_to_space(np.ones((3, 2, 2)), [2, 2], [[0, 0], [0, 0]]),
        lambda: tf.nn.bias_add(np.ones((2, 3)), np.ones(2)),
        lambda: tf.nn.pool(np.ones((1, 4, 4, 1)), [2, 2], "MIN"),
        lambda: tf.nn.ctc_loss(np.ones((2, 2)), np.ones((4, 2, 3)), 1, 1),
        lambda: tf.math.confusion_matrix([0, 3], [0, 1], num_classes=3),
        lambda: tf.reverse_sequence(np.ones((2, 3)), [4, 1], seq_axis=1),
        lambda: tf.unravel_index([12], [3, 4]),
        lambda: tf.bitcast(np.ones((2, 3), np.int32), tf.int64),
        lambda: tf.signal.frame(np.ones(4), 0, 1),
        lambda: tf.signal.dct(np.ones((2, 4)), 5),
        lambda: tf.signal.linear_to_mel_weight_matrix(upper_edge_hertz=5000.0),
        lambda: tf.nn.compute_average_loss(1.0),
    ],
)
def test_what_does_not_fit_is_a_value_error(wrong):
    with pytest.raises(ValueError, match=r".{15}"):
        wrong()


def test_losses_are_those_of_the_whole_batch():
    losses = tf.constant([1.0, 2.0, 3.0])
    assert float(tf.nn.compute_average_loss(losses)) == 2.0
    assert float(tf.nn.compute_average_loss(losses, [1.0, 0.0, 1.0], global_batch_size=8)) == 0.5
    assert float(tf.nn.scale_regularization_loss([1.0, 2.0])) == 3.0


def test_losses_of_replicas_add_up_to_it(monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "4")
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        v = tf.Variable(2.0)
    each = strategy.run(lambda: tf.nn.compute_average_loss(v * tf.constant([1.0, 3.0])))
    assert float(strategy.reduce("SUM", each, axis=None)) == 4.0


# Draws


def test_draws_with_parameters_broadcast_as_in_tensorflow():
    assert tf.random.gamma([5], [1.0, 2.0, 3.0]).shape == [5, 3]
    assert tf.random.gamma([5, 2], 1.0, beta=[[1.0], [2.0]]).shape == [5, 2, 2, 1]
    assert tf.random.poisson([4], [[1.0, 2.0]]).shape == [4, 1, 2]
    assert tf.random.poisson([], 2.0, dtype=tf.int64).dtype == tf.int64
    drawn = tf.random.stateless_poisson([6, 2], [1, 2], [3.0, 4.0])
    assert drawn.shape == [6, 2] and drawn.dtype == tf.int32
    assert tf.random.stateless_binomial([7], [1, 2], 5.0, [0.5]).shape == [7]


def test_draws_depend_on_the_seed_or_the_stream_alone():
    first = tf.random.stateless_gamma([9], [1, 2], 2.0).numpy()
    np.testing.assert_array_equal(first, tf.random.stateless_gamma([9], [1, 2], 2.0).numpy())
    assert not np.array_equal(first, tf.random.stateless_gamma([9], [1, 3], 2.0).numpy())
    tf.random.set_seed(3)
    one = [tf.random.gamma([3], 2.0).numpy(), tf.random.poisson([3], 9.0).numpy()]
    tf.random.set_seed(3)
    two = [tf.random.gamma([3], 2.0).numpy(), tf.random.poisson([3], 9.0).numpy()]
    np.testing.assert_array_equal(one, two)


def test_a_rate_of_gamma_draws_has_a_gradient():
    beta = tf.constant([1.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(beta)
        drawn = tf.random.stateless_gamma([2], [1, 2], 3.0, beta)
    expected = -drawn.numpy() / beta.numpy()
    np.testing.assert_allclose(tape.gradient(drawn, beta).numpy(), expected, rtol=1e-6)


def test_a_captured_function_draws_anew():
    step = tf.function(lambda rate: tf.random.poisson([20], rate), jit_compile="strict")
    found = [step(tf.constant(5.0)).numpy() for _ in range(4)]
    assert len({each.tobytes() for each in found}) == 4


def test_names_that_few_scripts_need():
    with tf.name_scope("a"), tf.name_scope("b"):
        assert tf.get_current_name_scope() == "a/b"
    assert tf.get_current_name_scope() == ""
    assert tf.type_spec_from_value([1.0]) == tf.TensorSpec([1], tf.float32)
    one, nothing = tf.tuple((tf.constant(1), None), [tf.constant(2)], "both")
    assert int(one) == 1 and nothing is None
    with pytest.raises(ValueError, match="must have a tensor"):
        tf.tuple([None])
    with pytest.raises(TypeError, match="list of tensors"):
        tf.tuple(3)
