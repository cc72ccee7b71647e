"""Activations as layers."""

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: layers.Activation("reluu"), "reluu"),
        (lambda: layers.ReLU(max_value=-1.0), "max_value.*-1.0"),
        (lambda: layers.ReLU(negative_slope=None), "negative_slope.*None"),
        (lambda: layers.ReLU(threshold=-0.5), "threshold.*-0.5"),
        (lambda: layers.LeakyReLU(-0.1), "negative_slope.*-0.1"),
        (lambda: layers.ThresholdedReLU(-1.0), "theta.*-1.0"),
        (lambda: layers.PReLU().build((None, None)), "known"),
        (lambda: layers.ELU(beta=1), "beta"),
    ],
)
def test_wrong_use_is_a_value_error(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_prelu_has_a_slope_for_each_element_that_is_not_shared():
    layer = layers.PReLU(shared_axes=1, alpha_initializer="ones")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x).numpy(), x)
    assert tuple(layer.alpha.shape) == (1, 3)


def test_the_old_relu_with_a_threshold_lets_through_what_is_above_it():
    layer = layers.ThresholdedReLU(theta=0.5)
    x = tf.constant([-1.0, 0.5, 0.75, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(y, [0, 0, 0.75, 2])
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 0, 1, 1])
    assert layers.ThresholdedReLU.from_config(layer.get_config()).theta == 0.5
    assert layers.ThresholdedReLU().theta == 1


def test_the_old_name_of_a_slope_warns():
    with pytest.warns(UserWarning, match="negative_slope"):
        layer = layers.LeakyReLU(alpha=0.1)
    assert layer.get_config()["negative_slope"] == 0.1


def test_a_row_that_is_masked_whole_has_no_probabilities():
    mask = np.array([[True, False, True], [False, False, False]])
    y = layers.Softmax()(np.zeros((2, 3), np.float32), mask=mask)
    np.testing.assert_array_equal(y.numpy(), [[0.5, 0, 0.5], [0, 0, 0]])


@pytest.mark.parametrize("make", [layers.Softmax, lambda: layers.Activation("softmax")])
def test_the_loss_goes_back_to_the_logits(make):
    """A saturated softmax layer still has a gradient, as a Dense with that activation does."""
    logits = tf.constant([[200.0, 0.0, -200.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.keras.losses.SparseCategoricalCrossentropy()(np.array([2]), make()(logits))
    assert float(loss) == 400
    np.testing.assert_array_equal(tape.gradient(loss, logits).numpy(), [[1, 0, -1]])


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 3), (4,)])
def test_a_mask_of_softmax_broadcasts_to_its_inputs(shape):
    np.testing.assert_allclose(layers.Softmax()(np.ones((1, 3)), mask=np.eye(3)[:1]), [[1, 0, 0]])
    with pytest.raises(ValueError, match="does not broadcast"):
        layers.Softmax()(np.ones((1, 3)), mask=np.ones(shape))
