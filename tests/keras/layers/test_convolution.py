"""Convolutions: second derivatives, shapes and errors."""

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

layers = tf.keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda **k: layers.Conv1D(3, 3, padding="causal", dilation_rate=2, **k), (2, 6, 2)),
        (lambda **k: layers.Conv2D(2, 2, strides=2, padding="same", **k), (2, 3, 4, 2)),
        (lambda **k: layers.Conv2D(4, 2, groups=2, **k), (2, 3, 3, 4)),
        (lambda **k: layers.DepthwiseConv2D(2, depth_multiplier=2, **k), (2, 3, 3, 2)),
        (lambda **k: layers.SeparableConv2D(3, 2, data_format="channels_first", **k), (1, 2, 3, 3)),
        (lambda **k: layers.Conv1DTranspose(2, 3, strides=2, **k), (2, 3, 2)),
        (lambda **k: layers.Conv2DTranspose(2, 3, padding="same", strides=2, **k), (1, 2, 3, 2)),
    ],
    ids=["Conv1D", "Conv2D", "groups", "depthwise", "separable", "transpose-1", "transpose-2"],
)
def test_first_and_second_derivatives(make, shape):
    """Of inputs, kernels and bias, through nested tapes, against finite differences."""
    layer = make(activation="tanh", dtype="float64")
    layer.build(shape)
    names = [name for name in vars(layer) if isinstance(vars(layer)[name], tf.Variable)]
    assert len(names) == len(layer.weights)

    def forward(inputs, *weights):
        for name, weight in zip(names, weights, strict=True):
            setattr(layer, name, weight)
        return layer(inputs)

    rng = np.random.default_rng(1)
    weights = [rng.normal(size=getattr(layer, name).shape) * 0.5 for name in names]
    check_gradients(forward, [rng.normal(size=shape), *weights])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Conv2D(2, 3)(x(4, 5, 3)), r"rank 4.*\(4, 5, 3\)"),
        (lambda: layers.Conv1D(2, 3)(x(1, 4, 5, 3)), r"rank 3"),
        (lambda: layers.Conv2D(2, 3).build((None, 5, 5, None)), "known"),
        (lambda: layers.Conv2D(0, 3), "filters.*0"),
        (lambda: layers.Conv2D(2, 0), "kernel_size.*0"),
        (lambda: layers.Conv2D(2, (3, 3, 3)), r"kernel_size.*\(3, 3, 3\)"),
        (lambda: layers.Conv2D(2, "3"), "kernel_size.*'3'"),
        (lambda: layers.Conv2D(2, 3, strides=(1, 0)), "strides.*0"),
        (lambda: layers.Conv2D(2, 3, padding="full"), "padding.*full"),
        (lambda: layers.Conv2D(2, 3, padding="causal"), "padding.*causal"),
        (lambda: layers.Conv2D(2, 3, data_format="NHWC"), "data_format.*NHWC"),
        (lambda: layers.Conv2D(2, 3, strides=2, dilation_rate=2), r"strides \(2, 2\)"),
        (lambda: layers.Conv2D(3, 3, groups=2), "groups 2.*3"),
        (lambda: layers.Conv2D(4, 3, groups=2)(x(1, 5, 5, 3)), "groups 2.*channels, 3"),
        (lambda: layers.Conv2D(4, 3, activation="reluu"), "reluu"),
        (lambda: layers.Conv2D(4, 3, filterz=2), "filterz"),
        (lambda: layers.Conv2D(4, 5)(x(1, 4, 9, 3)), r"do not fit|does not fit"),
        (lambda: layers.Conv2D(4, 5)(x(1, 2, 2, 3)), r"do not fit|does not fit"),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=0), "depth_multiplier.*0"),
        (lambda: layers.SeparableConv2D(-1, 3), "filters.*-1"),
        (lambda: layers.Conv2DTranspose(2, 3, output_padding=-1), "output_padding.*-1"),
        (
            lambda: layers.Conv1DTranspose(2, 3, strides=2, output_padding=4),
            "less than the strides",
        ),
        (
            lambda: layers.Conv2DTranspose(2, 2, (2, 2), output_padding=(1, 2)),
            r"\(1, 2\) must be less",
        ),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_other_channels_than_those_it_was_built_for(data_format):
    layer = layers.Conv2D(2, 3, data_format=data_format)
    first, other = (1, 5, 5, 3), (1, 5, 5, 4)
    if data_format == "channels_first":
        first, other = (1, 3, 5, 5), (1, 4, 5, 5)
    layer(x(*first))
    with pytest.raises(ValueError, match="3 channels") as caught:
        layer(x(*other))
    assert str(other) in str(caught.value)


def test_any_size_of_batch_and_image_after_build():
    layer = layers.Conv2D(2, 3, padding="same")
    layer.build((None, None, None, 3))
    assert tuple(layer(x(2, 4, 5, 3)).shape) == (2, 4, 5, 2)
    assert tuple(layer(x(7, 9, 3, 3)).shape) == (7, 9, 3, 2)
    assert tuple(layer(x(0, 9, 3, 3)).shape) == (0, 9, 3, 2)


def test_causal_outputs_see_no_later_step():
    layer = layers.Conv1D(2, 3, padding="causal", dilation_rate=2)
    inputs = x(1, 8, 2)
    before = layer(inputs).numpy()
    inputs[:, 5:] += 1
    after = layer(inputs).numpy()
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert (after[:, 5:] != before[:, 5:]).all()


def test_weights_are_named_and_shaped_as_in_keras():
    layer = layers.SeparableConv2D(5, (2, 3), depth_multiplier=2)
    layer.build((None, 8, 8, 3))
    named = [(weight.name, tuple(weight.shape)) for weight in layer.weights]
    assert named == [
        ("depthwise_kernel", (2, 3, 3, 2)),
        ("pointwise_kernel", (1, 1, 6, 5)),
        ("bias", (5,)),
    ]
    layer = layers.Conv2DTranspose(4, (2, 3), use_bias=False)
    layer.build((None, 8, 8, 3))
    assert [(w.name, tuple(w.shape)) for w in layer.weights] == [("kernel", (2, 3, 4, 3))]
    assert layer.name == "conv2d_transpose" and layers.Conv2D(1, 1).name == "conv2d"


def test_a_small_network_learns():
    """Bars in rows against bars in columns."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 128)
    images = rng.normal(size=(128, 6, 6, 1)).astype(np.float32) * 0.3
    for image, label, at in zip(images, labels, rng.integers(0, 6, 128), strict=True):
        image[(at, slice(None)) if label else (slice(None), at)] += 1
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.learning_rate = 0.01
    history = model.fit(images, labels, epochs=15, verbose=0).history
    assert history["accuracy"][-1] > 0.95


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_subclass_may_define_the_convolution_or_call_it_with_other_kernels(data_format):
    class Doubled(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, 2 * kernel)

    class Called(layers.Conv2D):
        def call(self, inputs):
            return self.convolution_op(inputs, self.kernel + self.kernel)

    options = {"data_format": data_format, "padding": "same", "strides": 2}
    images = x(2, 3, 5, 4) if data_format == "channels_first" else x(2, 5, 4, 3)
    plain = layers.Conv2D(2, 3, activation="relu", bias_initializer="ones", **options)
    doubled = Doubled(2, 3, activation="relu", bias_initializer="ones", **options)
    called = Called(2, 3, use_bias=False, **options)
    for layer in (plain, doubled, called):
        layer(images)
    kernel, bias = doubled.get_weights()
    plain.set_weights([2 * kernel, bias])
    called.set_weights([kernel])
    np.testing.assert_array_equal(doubled(images), plain(images))
    shift = bias.reshape((-1, 1, 1) if data_format == "channels_first" else -1)
    np.testing.assert_allclose(tf.nn.relu(called(images) + shift), plain(images), rtol=1e-6)
