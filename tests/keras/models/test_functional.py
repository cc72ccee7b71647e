"""Functional models: shapes, sharing, operators, sub-models, configs, errors."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_shapes_come_from_running_on_zeros_and_draw_nothing():
    tf.random.set_seed(1)
    expected = tf.random.uniform((3,)).numpy()
    tf.random.set_seed(1)
    a = keras.Input((None, 4))
    b = layers.Dropout(0.5)(layers.Reshape((-1, 2))(a))
    assert (a.shape, b.shape) == ((None, None, 4), (None, None, 2))
    assert layers.Flatten()(keras.Input((3, 4), batch_size=5)).shape == (5, 12)
    assert keras.Input((2,), dtype="int32").dtype == "int32"
    np.testing.assert_array_equal(tf.random.uniform((3,)).numpy(), expected)


def test_several_inputs_and_outputs_by_list_dict_and_name():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, {"sum": a + b, "product": a * b})
    found = model({"a": x(2, 3), "b": 2 * x(2, 3)})
    np.testing.assert_allclose(found["sum"], 3 * x(2, 3), rtol=1e-6)
    np.testing.assert_allclose(found["product"], 2 * x(2, 3) ** 2, rtol=1e-6)
    assert model.output_shape == {"sum": (None, 3), "product": (None, 3)}
    listed = keras.Model([a, b], [a - b])
    by_list, by_name = listed([x(2, 3), x(2, 3) / 2]), listed({"b": x(2, 3) / 2, "a": x(2, 3)})
    np.testing.assert_array_equal(by_list, by_name)
    assert listed.input_shape == [(None, 3), (None, 3)] and listed.input_names == ["a", "b"]
    with pytest.raises(ValueError, match="2 inputs, 1"):
        listed(x(2, 3))
    with pytest.raises(ValueError, match="b is missing"):
        listed({"a": x(2, 3)})


def test_lists_of_keras_tensors_may_be_written_into():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    both = [keras.layers.Add()(inputs), keras.layers.Multiply()(inputs)]
    inner = keras.Model(inputs, both)
    again = inner(inputs)
    again[-1] = keras.layers.Rescaling(10.0)(again[-1])
    model = keras.Model(inputs, again)
    inputs[0] = both[0] = again[0] = inner.output[0] = inner.input[0] = None
    ones = np.ones((1, 2), np.float32)
    assert [np.array(out).tolist() for out in model([ones, ones])] == [[[2.0, 2.0]], [[10.0, 10.0]]]
    assert [np.array(out).tolist() for out in inner([ones, ones])] == [[[2.0, 2.0]], [[1.0, 1.0]]]


def test_operators_on_keras_tensors():
    a = keras.Input((3, 4))
    b = keras.Input((4, 2))
    outputs = [a @ b, 1 - a, 2 / (a * a + 1), -a, abs(a), a**2, a[:, 0], a[:, ::2, 1:], a > 0]
    found = keras.Model([a, b], outputs)([x(5, 3, 4), x(5, 4, 2)])
    p, q = x(5, 3, 4), x(5, 4, 2)
    expected = [p @ q, 1 - p, 2 / (p * p + 1), -p, abs(p), p**2, p[:, 0], p[:, ::2, 1:], p > 0]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)


def test_shared_layers_and_models_as_layers_share_weights():
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, layers.Dense(4, activation="tanh")(inner_in))
    shared = layers.Dense(4)
    a = keras.Input((4,))
    model = keras.Model(a, shared(inner(shared(inner(a)))))
    assert len(model.weights) == 4
    expected = x(2, 4)
    for _ in range(2):
        expected = shared(inner(expected))
    np.testing.assert_array_equal(model(x(2, 4)), expected)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x(2, 4)))
    assert all(g is not None for g in tape.gradient(loss, model.trainable_variables))
    # called on new KerasTensors, a model is one layer of another
    b = keras.Input((4,))
    outer = keras.Model(b, model(b) + b)
    np.testing.assert_array_equal(outer(x(2, 4)), model(x(2, 4)) + x(2, 4))
    assert model in outer.layers and len(outer.weights) == 4


def test_feature_extraction_and_inputs_in_the_middle():
    a = keras.Input((4,))
    middle = layers.Dense(3, name="middle")(a)
    model = keras.Model(a, layers.Dense(2)(middle))
    features = keras.Model(model.inputs, model.get_layer("middle").output)
    np.testing.assert_array_equal(features(x(2, 4)), model.get_layer("middle")(x(2, 4)))
    tail = keras.Model(middle, model.output)
    np.testing.assert_array_equal(tail(features(x(2, 4))), model(x(2, 4)))
    assert isinstance(tail.layers[0], layers.InputLayer)
    assert [layer.name for layer in tail.layers[1:]] == ["dense"]
    first = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    part = keras.Model(first.inputs, first.layers[0].output)
    np.testing.assert_array_equal(part(x(2, 4)), first.layers[0](x(2, 4)))


def test_names_count_up_in_the_order_in_which_layers_were_made():
    inputs = keras.Input((4,))
    left = layers.Dense(2)(inputs)
    left = layers.Dense(3)(left)
    right = layers.Dense(3)(inputs)  # nearer to the input than the one before
    model = keras.Model(inputs, layers.add([left, right]))
    named = {layer.name: layer.weights[0].shape for layer in model.layers if layer.weights}
    assert named == {"dense": (4, 2), "dense_1": (2, 3), "dense_2": (4, 3)}


def test_errors_name_the_tensor_and_say_what_to_do():
    a, b = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    with pytest.raises(ValueError, match="disconnected.*'second'"):
        keras.Model(a, a + b)
    with pytest.raises(ValueError, match="KerasTensor"):
        keras.Model(x(2, 3), a)
    with pytest.raises(ValueError, match="both"):
        keras.Model(inputs=a)
    for function in (tf.reduce_sum, tf.exp, lambda t: tf.matmul(t, t), float, bool):
        with pytest.raises(TypeError, match="layer"):
            function(a)
    with pytest.raises(ValueError, match=r"first.*\(None, 3\).*\(2, 4\)"):
        keras.Model(a, a * 2)(x(2, 4))
    with pytest.raises(ValueError, match="same|differ"):
        keras.Model(a, layers.Dense(2, name="x")(layers.Dense(2, name="x")(a)))
    with pytest.raises(ValueError, match="must be known"):
        layers.Dense(2)(keras.Input((None,)))


def test_one_dimensional_inputs_are_given_their_axis():
    a = keras.Input((1,))
    model = keras.Model(a, a * 2)
    assert tuple(model(x(5)).shape) == (5, 1)


def test_config_json_and_clone_give_an_equal_model():
    a, b = keras.Input((4, 3)), keras.Input((2,), name="b")
    shared = layers.Dense(2, activation="relu")
    y = layers.Concatenate()([shared(a)[:, 0], shared(a)[:, -1], 1 - b])
    model = keras.Model([a, b], {"y": layers.Dense(1)(y)}, name="shared")
    for twin in (
        type(model).from_config(model.get_config()),
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
    ):
        assert twin.get_config() == model.get_config() and twin.name == "shared"
        assert twin.weights[0] is not model.weights[0]
        twin.set_weights(model.get_weights())
        inputs = [x(2, 4, 3), x(2, 2)]
        np.testing.assert_array_equal(twin(inputs)["y"], model(inputs)["y"])


def test_a_deep_model_needs_no_recursion():
    y = a = keras.Input((2,))
    for _ in range(1500):
        y = y + 1.0
    np.testing.assert_array_equal(keras.Model(a, y)(np.zeros((1, 2))), np.full((1, 2), 1500.0))


def test_integer_inputs_stay_integers():
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, layers.Lambda(lambda t: tf.one_hot(t, 4))(ids))
    assert tuple(model(np.zeros((2, 3), np.int64)).shape) == (2, 3, 4)


def test_training_fits_two_outputs():
    a = keras.Input((3,))
    hidden = layers.Dense(8, activation="tanh")(a)
    model = keras.Model(a, [layers.Dense(1, name="u")(hidden), layers.Dense(1, name="v")(hidden)])
    model.compile(keras.optimizers.Adam(0.02), loss="mse")
    data, y = x(64, 3), x(64, 3).sum(axis=1, keepdims=True)
    losses = model.fit(data, [y, -y], epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]


def test_masks_in_a_model_that_is_being_described():
    """Layers of one's own that need or make masks, as in Keras's guide to masking."""

    class Halves(layers.Layer):
        def call(self, inputs):
            return tf.split(inputs, 2, axis=1)

        def compute_mask(self, inputs, mask=None):
            return None if mask is None else tf.split(mask, 2, axis=1)

    class Softmax(layers.Layer):
        supports_masking = True

        def call(self, inputs, mask=None):
            assert mask is not None
            kept = tf.exp(inputs) * tf.cast(mask, "float32")[..., None]
            return kept / tf.reduce_sum(kept, axis=1, keepdims=True)

    inputs = keras.Input((6,), dtype="int32")
    first, second = Halves()(layers.Embedding(9, 3, mask_zero=True)(inputs))
    assert first._keras_mask.shape == second._keras_mask.shape == (None, 3)
    assert keras.Input((4,))._keras_mask is None
    model = keras.Model(inputs, Softmax()(layers.Dense(1)(second)))
    outputs = model(np.array([[1, 2, 3, 4, 0, 0], [1, 2, 3, 4, 5, 0]])).numpy()[..., 0]
    np.testing.assert_array_equal(outputs > 0, [[True, False, False], [True, True, False]])


def test_a_config_is_read_by_model_itself_and_with_custom_objects():
    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(Twice()(inputs)))
    config = model.get_config()
    twin = keras.Model.from_config(config, custom_objects={"Twice": Twice})
    assert [type(layer) for layer in twin.layers] == [type(layer) for layer in model.layers]
    plain = keras.Model.from_config(keras.Model(inputs, layers.Dense(2)(inputs)).get_config())
    assert plain.count_params() == 8
    stack = keras.Sequential([keras.Input((3,)), Twice()])
    twin = keras.Sequential.from_config(stack.get_config(), custom_objects={"Twice": Twice})
    assert type(twin.layers[0]) is Twice


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv1D(4, 64),
        lambda: layers.Conv1D(4, 33, dilation_rate=3),
        lambda: layers.Conv1D(4, 32, strides=32),
        lambda: layers.Conv1D(4, 3, strides=64, padding="same"),
        lambda: layers.MaxPooling1D(40),
    ],
)
def test_long_windows_move_along_axes_of_any_size(layer):
    """Even those that no trial of a few elements has room for, or has more than one place for."""
    made = layer()
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, made(inputs))
    assert model.output_shape == (None, None, 4)
    assert tuple(model(np.zeros((2, 500, 4), np.float32)).shape) == tuple(
        made(np.zeros((2, 500, 4), np.float32)).shape
    )


def test_a_deep_model_of_images_of_any_size_is_a_layer():
    inputs = keras.Input((None, None, 3))
    x = inputs
    for _ in range(5):
        x = layers.MaxPooling2D(2)(layers.Conv2D(2, 3)(x))
    inner = keras.Model(inputs, x)
    again = keras.Input((None, None, 3))
    assert tuple(inner(again).shape) == (None, None, None, 2)


@pytest.mark.parametrize("kind", ["functional", "sequential", "own"])
def test_a_model_that_is_called_with_training_false_stays_at_inference(kind, tmp_path):
    """As fine-tuning has it: its weights learn, its statistics do not, and nothing is dropped."""
    inner = [layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.9)]
    if kind == "own":

        class Block(layers.Layer):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def call(self, inputs):
                for layer in self.inner:
                    inputs = layer(inputs)
                return inputs

            def compute_output_spec(self, inputs):
                return keras.KerasTensor((*inputs.shape[:-1], 3))

        base = Block()
    else:
        base = keras.Sequential([keras.Input((4,)), *inner])
        if kind == "functional":
            base = keras.Model(base.input, base.output)
    data = x(8, 4)
    if kind == "own":
        base(data)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, base(inputs, training=False))
    statistics = [v.numpy() for v in base.non_trainable_weights]
    kernel = base.trainable_weights[0].numpy()
    model.compile("sgd", "mse")
    np.testing.assert_allclose(model(data, training=True), model(data, training=False), rtol=1e-6)
    model.fit(data, np.ones((8, 3), np.float32), verbose=0)
    assert (kernel != base.trainable_weights[0].numpy()).any()
    for before, after in zip(statistics, base.non_trainable_weights, strict=True):
        np.testing.assert_array_equal(before, after.numpy())
    if kind != "own":
        twin = keras.Model.from_config(model.get_config())
        np.testing.assert_array_equal(twin(data, training=True), twin(data, training=False))
        other = keras.Model(inputs, base(inputs))
        assert (other(data, training=True).numpy() != other(data, training=False).numpy()).any()


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_call_takes_training_and_mask_as_in_keras(kind):
    stack = [keras.Input((3, 2)), layers.Dropout(0.5), layers.LSTM(4)]
    model = keras.Sequential(stack)
    if kind == "functional":
        model = keras.Model(model.input, model.output)
    data, mask = x(2, 3, 2), np.array([[True, True, False], [True, False, False]])
    shorter = [model(data[:1, :2]), model(data[1:, :1])] if kind == "sequential" else None
    plain = model(data, mask=mask).numpy()
    for found in (model(data, False, mask), model.call(data, training=False, mask=mask)):
        np.testing.assert_array_equal(found, plain)
    assert (plain != model(data).numpy()).any()
    if shorter is not None:
        np.testing.assert_allclose(plain, np.concatenate(shorter), rtol=1e-5, atol=1e-6)
    for call in (lambda: model(data, True), lambda: model.call(data, training=True)):
        assert (call().numpy() != call().numpy()).any()

    class Doubled(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    own = Doubled([layers.Dropout(0.5), layers.Dense(3)])
    assert (own(data, training=True).numpy() != own(data, training=True).numpy()).any()
    np.testing.assert_allclose(own(data), 2 * own.layers[1](data), rtol=1e-6)


# Graphs: a batch is all nodes, and constants say what belongs together


class Neighbours(tf.keras.layers.Layer):
    """The mean over the nodes from which an edge comes, beside the node's own features."""

    def __init__(self, edges, count):
        super().__init__()
        self.edges, self.count = tf.constant(edges), count

    def call(self, x):
        sent = tf.gather(x, self.edges[:, 0])
        mean = tf.math.unsorted_segment_mean(sent, self.edges[:, 1], num_segments=self.count)
        return tf.concat([x, mean], 1)


def test_a_layer_with_the_edges_of_a_graph_takes_its_nodes_as_a_batch():
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 69, (200, 2))  # not of the last node
    x = tf.keras.Input((5,))
    y = tf.keras.layers.Dense(3)(Neighbours(edges, 70)(x))
    model = tf.keras.Model(x, y)
    assert model.output_shape == (None, 3)
    model.compile("sgd", "mse")
    given = rng.normal(size=(70, 5)).astype(np.float32)
    losses = model.fit(given, given[:, :3], batch_size=70, epochs=3, shuffle=False, verbose=0)
    assert np.all(np.diff(losses.history["loss"]) < 0)
    with pytest.raises(ValueError, match=r"outside \[0, 3\)"):
        model.predict(given[:3], verbose=0)


def test_an_adjacency_matrix_fixes_the_batch():
    adjacency = tf.constant(np.eye(90, k=1, dtype=np.float32))
    x = tf.keras.Input((4,))
    model = tf.keras.Model(x, tf.keras.layers.Lambda(lambda h: adjacency @ h)(x))
    assert model.output_shape == (None, 4)
    given = np.arange(360, dtype=np.float32).reshape(90, 4)
    np.testing.assert_array_equal(model(given)[:-1], given[1:])


def test_constant_indices_have_room_in_axes_of_any_size():
    x = tf.keras.Input((None, 3))
    assert tf.keras.ops.take(x, [0, 700], axis=1).shape == (None, 2, 3)
    assert tf.keras.ops.take(tf.keras.Input((3,)), [0, 700], axis=0).shape == (2, 3)
