"""Recurrent layers: state between batches, dropout, masks, custom cells, wrappers, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.keras import layers
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep

RNG = np.random.default_rng(4)
KINDS = [layers.SimpleRNN, layers.LSTM, layers.GRU]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-6)


# State between batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_stateful_layer_goes_on_where_it_was(kind: type) -> None:
    x = normal(4, 6, 3)
    layer = kind(5, stateful=True, return_sequences=True)
    first, second = layer(x[:, :2]), layer(x[:, 2:])
    whole = kind(5, return_sequences=True)
    whole.build(x.shape)
    whole.set_weights(layer.get_weights())  # states are not among the weights
    close(np.concatenate([first, second], 1), whole(x))
    layer.reset_state()
    close(layer(x), whole(x))


def test_a_stateful_layer_wants_batches_of_one_size() -> None:
    layer = layers.LSTM(2, stateful=True)
    layer(normal(4, 3, 2))
    with pytest.raises(ValueError, match="had 4 samples, this one has 3.*reset_state"):
        layer(normal(3, 3, 2))
    layer.reset_state()
    assert layer(normal(3, 3, 2)).shape == (3, 2)


def test_a_gradient_ends_where_a_batch_began() -> None:
    layer, x = layers.GRU(2, stateful=True), tf.constant(normal(1, 2, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        layer(x)
        y = layer(normal(1, 2, 2))
    assert tape.gradient(y, x) is None


def test_describing_a_model_leaves_no_state() -> None:
    inputs = tf.keras.Input((3, 2))
    layer = layers.LSTM(2, stateful=True)
    model = tf.keras.Model(inputs, layer(inputs))
    assert layer.states is None
    assert model(normal(7, 3, 2)).shape == (7, 2)
    assert [state.shape for state in layer.states] == [(7, 2)] * 2
    assert len(model.weights) == 3


def test_captured_steps_begin_where_a_stateful_layer_is() -> None:
    x, y = normal(4, 3, 2), normal(4, 1)
    losses = []
    for eager in (True, False):
        layer = layers.GRU(
            2, stateful=True, kernel_initializer="ones", recurrent_initializer="ones"
        )
        model = tf.keras.Sequential([layer, layers.Dense(1, kernel_initializer="ones")])
        model.compile("sgd", "mse", run_eagerly=eager)
        losses.append([])
        for _ in range(3):
            history = model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
            losses[-1] += history.history["loss"]
            layer.reset_state()
            assert not np.any(layer.states[0])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_stateful_layer_in_fit_and_in_several_shards() -> None:
    x, y = normal(8, 3, 2), normal(8, 1)
    layer = layers.LSTM(2, stateful=True)
    model = tf.keras.Sequential([layer, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert layer.states[0].shape == (4, 2)
    layer.reset_state()

    def compute(arrays: tuple, training: bool) -> ShardResult:
        return ShardResult(tf.reduce_mean(model(arrays[0], training=training)), np.zeros(0))

    variables = model.trainable_variables
    step = TrainStep(compute, 0, variables, tf.keras.optimizers.SGD(), Communicator(), 2, 1)
    (batch,) = Loader(ArraySource(x), 8, 2, range(2), 1).epoch(0)
    with pytest.raises(ValueError, match="stateful .* one virtual shard"):
        step(0, batch)


# Dropout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"recurrent_dropout": 0.5}])
def test_dropout_is_drawn_in_training_once_for_all_steps(kind: type, options: dict) -> None:
    x = np.ones((2, 6, 3), np.float32)
    layer = kind(4, **options)
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    tf.random.set_seed(1)
    one = layer(x, training=True)
    assert not np.array_equal(one, layer(x, training=True))
    tf.random.set_seed(1)
    np.testing.assert_array_equal(one, layer(x, training=True))
    # One mask for all steps: with the masks of that draw the cell gives the same step by step.
    tf.random.set_seed(1)
    of_inputs, of_states = layer.cell.masks(2, True)
    step = layer.cell.recurrence(of_states)
    states = layer.get_initial_state(2)
    for t in range(6):
        states = step(layer.cell.project(tf.constant(x[:, t]), of_inputs), states)
    close(states[0], one)
    drawn = np.unique(np.concatenate([np.ravel(m) for m in of_inputs or of_states]))
    np.testing.assert_array_equal(drawn, [0, 2])


def test_initial_states_are_made_for_a_size_or_for_inputs() -> None:
    layer, x = layers.LSTM(4), tf.ones((2, 6, 3))
    for given in (2, np.int64(2), tf.shape(x)[0], x):
        states = layer.get_initial_state(given)
        assert [state.shape for state in states] == [(2, 4), (2, 4)]
    np.testing.assert_array_equal(layer(x, initial_state=layer.get_initial_state(x)), layer(x))


def test_each_gate_has_its_own_mask_under_recurrent_dropout() -> None:
    cell = layers.LSTMCell(4, dropout=0.5, recurrent_dropout=0.5)
    cell.build((None, 3))
    of_inputs, of_states = cell.masks(8, True)
    assert [m.shape for m in of_inputs] == [(8, 3)] * 4
    assert [m.shape for m in of_states] == [(8, 4)] * 4
    x, h = normal(8, 3), normal(8, 4)
    kernel = cell.kernel.numpy()
    expected = [(x * m.numpy()) @ kernel[:, 4 * i : 4 * i + 4] for i, m in enumerate(of_inputs)]
    close(cell.project(tf.constant(x), of_inputs) - cell.bias, np.concatenate(expected, 1))
    assert cell(x, [h, h], training=True)[0].shape == (8, 4)


# Masks


def test_padding_changes_nothing() -> None:
    x = normal(3, 4, 2)
    keep = np.arange(4)[None] < np.array([[4], [2], [3]])
    model = tf.keras.Sequential([layers.Masking(9.0), layers.LSTM(3, return_sequences=True)])
    model.add(layers.Bidirectional(layers.GRU(3)))
    x[~keep] = 9.0
    together = model(x).numpy()
    for row, n in zip(range(3), keep.sum(1), strict=True):
        close(model(x[row : row + 1, :n])[0], together[row])


def test_the_mask_goes_on_with_sequences_only() -> None:
    x, keep = tf.constant(normal(2, 3, 2)), tf.constant([[True, True, False], [True, False, False]])
    sequences, last = layers.GRU(2, return_sequences=True), layers.GRU(2)
    masked = layers.Masking(0.0)(x * tf.cast(keep, "float32")[:, :, None])
    np.testing.assert_array_equal(sequences(masked)._keras_mask, keep)
    assert getattr(last(masked), "_keras_mask", None) is None
    many = layers.LSTM(2, return_sequences=True, return_state=True)(masked)
    np.testing.assert_array_equal(many[0]._keras_mask, keep)
    assert getattr(many[1], "_keras_mask", None) is None
    both = layers.Bidirectional(layers.LSTM(2, return_sequences=True, return_state=True))(masked)
    np.testing.assert_array_equal(both[0]._keras_mask, keep)
    assert len(both) == 5


# Cells of users


class Fading(layers.Layer):
    """Adds inputs to a state that fades: a cell in a user's hands."""

    def __init__(self, units: int, rate: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.rate = units, rate
        self.state_size = units

    def call(self, inputs: Any, states: Any) -> Any:
        (old,) = states
        new = self.rate * old + inputs
        return 10 * new, [new]


def test_a_cell_of_a_user() -> None:
    x = normal(2, 3, 4)
    layer = layers.RNN(Fading(4), return_sequences=True, return_state=True)
    outputs, state = layer(x)
    expected = x[:, 2] + 0.5 * x[:, 1] + 0.25 * x[:, 0]
    close(state, expected)
    close(outputs[:, 2], 10 * expected)
    outputs, state = layer(x, mask=np.array([[True, True, False], [True, False, True]]))
    close(state[0], x[0, 1] + 0.5 * x[0, 0])
    close(state[1], x[1, 2] + 0.5 * x[1, 0])
    close(outputs[0, 2], outputs[0, 1])


# Wrappers


def test_bidirectional_makes_its_own_layers() -> None:
    inner = layers.LSTM(3, name="mine")
    layer = layers.Bidirectional(inner)
    assert (layer.forward_layer.name, layer.backward_layer.name) == (
        "forward_mine",
        "backward_mine",
    )
    layer(normal(2, 3, 2))
    assert not inner.built
    weights = layer.get_weights()
    other = layers.Bidirectional(layers.LSTM(3), weights=weights)
    x = normal(2, 3, 2)
    np.testing.assert_array_equal(other(x), layer(x))


def test_time_distributed_gives_an_inner_mask_its_own_axis() -> None:
    x = normal(2, 3, 4, 5)
    keep = RNG.uniform(size=(2, 3, 4)) > 0.3
    layer = layers.TimeDistributed(layers.GRU(2))
    found = layer(x, mask=keep)
    for t in range(3):
        close(found[:, t], layer.layer(x[:, t], mask=keep[:, t]))


# Training, dtypes, configs, errors


def test_it_learns_to_remember_the_first_step() -> None:
    tf.keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 8, 1)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int64)
    model = tf.keras.Sequential([layers.GRU(16), layers.Dense(2)])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=12, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision(kind: type) -> None:
    x = normal(2, 4, 3)
    layer = kind(5, dtype="mixed_float16", return_state=True)
    with tf.GradientTape() as tape:
        outputs = layer(x)
        total = tf.reduce_sum(outputs[0])
    assert {output.dtype for output in outputs} == {tf.float16}
    gradients = tape.gradient(total, layer.trainable_variables)
    assert {g.dtype for g in gradients} == {tf.float32}
    full = kind(5, return_state=True)
    full.build(x.shape)
    full.set_weights(layer.get_weights())
    np.testing.assert_allclose(outputs[0], full(x)[0], atol=4e-3)  # float16 has 11 bits


def test_the_forget_gate_starts_open() -> None:
    layer = layers.LSTM(3)
    layer.build((None, 4, 2))
    np.testing.assert_array_equal(layer.cell.bias, np.repeat([0, 1, 0, 0], 3))
    layer = layers.LSTM(3, unit_forget_bias=False)
    layer.build((None, 4, 2))
    np.testing.assert_array_equal(layer.cell.bias, np.zeros(12))
    kernel = layer.cell.recurrent_kernel.numpy()
    close(kernel @ kernel.T, np.eye(3))  # orthogonal


def test_arguments_reach_the_cell_and_the_config() -> None:
    layer = layers.GRU(
        3, "relu", kernel_regularizer="l2", dropout=0.1, seed=3, trainable=False, unroll=True
    )
    config = layer.get_config()
    assert config["activation"] == "relu" and config["dropout"] == 0.1 and config["seed"] == 3
    assert "cell" not in config and config["unroll"] is True
    assert layer.units == 3 and layer.cell.kernel_regularizer is layer.kernel_regularizer
    layer.build((None, 2, 2))
    assert layer.trainable_variables == [] and len(layer.non_trainable_variables) == 3
    with pytest.raises(AttributeError, match="'GRU' object has no attribute 'unit'"):
        _ = layer.unit


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.LSTM(0), "units must be a positive int, not 0"),
        (lambda: layers.GRUCell("3"), "units .* '3'"),
        (lambda: layers.GRU(2, dropout=1.5), "dropout must lie between .*1.5"),
        (lambda: layers.GRU(2, recurrent_dropout=-1), "recurrent_dropout must lie between"),
        (lambda: layers.ConvLSTM2D(2, 3, dropout=1.0), "dropout must lie between .*1.0"),
        (lambda: layers.RNN(layers.Dense(2)), "a state_size"),
        (lambda: layers.LSTM(2, returns=True), "no argument 'returns'"),
        (lambda: layers.LSTM(2)(normal(3, 4)), "batch, time, features"),
        (lambda: layers.LSTM(2)(normal(3, 0, 4)), "no steps"),
        (lambda: layers.LSTM(2)(normal(2, 3, 4), mask=np.ones((2, 4), bool)), "does not fit"),
        (
            lambda: layers.LSTM(2)(normal(2, 3, 4), initial_state=[normal(2, 2)]),
            "has 2 states, initial_state has 1",
        ),
        (lambda: layers.Bidirectional(3), "recurrent layer, not 3"),
        (lambda: layers.Bidirectional(layers.GRU(2), "cat"), "merge_mode .* 'cat'"),
        (lambda: layers.Bidirectional(layers.GRU(2, go_backwards=True)), "go backwards"),
        (
            lambda: layers.Bidirectional(
                layers.GRU(2), backward_layer=layers.GRU(2, go_backwards=True, return_state=True)
            ),
            "return_state is False forwards and True backwards",
        ),
        (lambda: layers.TimeDistributed("x"), "a layer, not 'x'"),
        (lambda: layers.TimeDistributed(layers.Dense(2))(normal(2, 3)), "rank 3 or more"),
    ],
)
def test_errors(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("kind", [layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell])
def test_a_cell_of_ours_whose_call_a_subclass_changes(kind: type) -> None:
    class Twice(kind):  # type: ignore[misc]
        def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
            output, states = super().call(inputs, states, training=training)
            return 2 * output, states

    plain, twice = (layers.RNN(cell(4), return_sequences=True) for cell in (kind, Twice))
    x = normal(2, 5, 3)
    plain.build(x.shape)
    twice.build(x.shape)
    twice.set_weights(plain.get_weights())
    close(twice(x), 2 * plain(x))


def test_sequences_of_whole_numbers():
    whole = np.array([[[1, 2], [0, 3]]])
    for layer in (
        layers.LSTM(2),
        layers.GRU(2),
        layers.SimpleRNN(2),
        layers.Bidirectional(layers.LSTM(2)),
    ):
        np.testing.assert_array_equal(layer(whole), layer(whole.astype(np.float32)))
    masked = layers.Masking()(np.array([[[0, 0], [0, 3]]]))
    assert masked._keras_mask.numpy().tolist() == [[False, True]]


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_the_implementation_is_taken_and_changes_nothing(name):
    layer = getattr(layers, name)(2, implementation=1)
    cell = getattr(layers, f"{name}Cell")(2, implementation=1)
    assert "implementation" not in {**layer.get_config(), **cell.get_config()}


def test_an_inner_layer_of_a_users_own_gets_the_mask_of_its_samples():
    class Hides(layers.Layer):
        def call(self, x, mask=None):
            return tf.where(mask[:, None], x, 0.0)

    steps, mask = np.ones((2, 3, 4), np.float32), np.array([[1, 0, 1], [0, 1, 1]], bool)
    seen = layers.TimeDistributed(Hides())(steps, mask=mask)
    np.testing.assert_array_equal(seen, np.broadcast_to(mask[..., None], (2, 3, 4)))
    norm = layers.TimeDistributed(layers.BatchNormalization(momentum=0.0))
    norm(np.where(mask[..., None], steps, 9.0), mask=mask, training=True)
    np.testing.assert_allclose(norm.layer.moving_mean, np.ones(4), rtol=1e-6)


def test_a_mask_is_filled_in_where_a_layer_is_given_one_input_alone():
    """As in Keras, whose LSTM does not see it beside an initial state; values from Keras 3.15."""

    class Both(tf.keras.layers.Layer):
        supports_masking = True

        def call(self, a, b=None, mask=None):
            return a * (2.0 if mask is None else 1.0)

    options = {"embeddings_initializer": "ones", "mask_zero": True}
    x = tf.keras.layers.Embedding(4, 2, **options)(np.array([[1, 2, 0, 0]]))
    assert float(Both()(x)[0, 0, 0]) == 1.0
    assert float(Both()(x, x)[0, 0, 0]) == float(Both()(x, b=[x])[0, 0, 0]) == 2.0
    lstm = tf.keras.layers.LSTM(3, kernel_initializer="ones", recurrent_initializer="ones")
    zeros = tf.zeros((1, 3))
    assert float(lstm(x)[0, 0]) == pytest.approx(0.92858154, rel=1e-6)
    beside = lstm(x, initial_state=[zeros, zeros])
    assert float(beside[0, 0]) == pytest.approx(0.9919809, rel=1e-6)
