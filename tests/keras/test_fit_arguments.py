"""What fit, evaluate and predict may be given, and what they say of what they may not."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

from .linear import X, Y, generator, linear, same, weights_after

keras = tf.keras
layers = keras.layers


WEIGHTED = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(len(X)))).batch(4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.fit(generator(), Y), "generator"),
        (lambda m: m.fit(X, Y, batch_size=0), "batch_size"),
        (lambda m: m.fit([X, X], Y[:3]), "length"),
        (lambda m: m.fit(X, Y, sample_weight=np.ones(3)), "sample_weight"),
        (lambda m: m.fit(X, Y, validation_split=1.0), "validation_split"),
        (lambda m: m.fit(None), "no data"),
        (lambda m: m.fit(X[:0], Y[:0]), "no samples"),
        (lambda m: m.fit(X, Y, class_weight={0: 1.0}, sample_weight=np.ones(40)), "together"),
        (lambda m: m.fit(WEIGHTED, class_weight={0: 1.0}), "together"),
        (lambda m: m.fit(X, [Y, Y], class_weight={0: 1.0}), "y has 2"),
        (lambda m: m.train_on_batch(X, class_weight={0: 1.0}), "y has none"),
        (lambda m: m.fit(iter([])), "no batch"),
    ],
)
def test_wrong_data_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call(linear())


HELD = {"validation_data": (X, Y)}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"epochs": "3"}, TypeError, "epochs is '3': give a whole number"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"epochs": -1}, ValueError, "epochs is -1: give 0 or more"),
        ({"initial_epoch": "1"}, TypeError, "initial_epoch is '1'"),
        ({"batch_size": "4"}, TypeError, "batch_size is '4'.*None for 32"),
        ({"batch_size": -2}, ValueError, "batch_size is -2: give 1 or more"),
        ({"steps_per_epoch": "a"}, TypeError, "steps_per_epoch is 'a'"),
        ({"steps_per_epoch": -1}, ValueError, "steps_per_epoch is -1"),
        ({"validation_split": "a"}, TypeError, "validation_split is 'a'"),
        ({"validation_split": 1.5}, ValueError, "validation_split is 1.5: give a fraction"),
        ({"validation_freq": "a", **HELD}, ValueError, "validation_freq is 'a'"),
        ({"validation_freq": [1, "a"], **HELD}, TypeError, r"validation_freq\[1\] is 'a'"),
        ({"validation_steps": 2.5, **HELD}, TypeError, "validation_steps is 2.5"),
        ({"validation_batch_size": 0, **HELD}, ValueError, "validation_batch_size is 0"),
        ({"validation_data": 3}, ValueError, "no first axis"),
        ({"callbacks": [3]}, TypeError, "callbacks holds 3: give objects of keras.callbacks"),
        ({"callbacks": [keras.callbacks.History]}, TypeError, "callbacks holds <class"),
        ({"class_weight": [1, 2]}, TypeError, "class_weight is .1, 2.: give a dict"),
        ({"class_weight": {0: "a"}}, ValueError, "class_weight is .*: give numbers"),
    ],
    ids=str,
)
def test_arguments_of_fit_are_checked_before_anything_runs(given, kind, words):
    model = linear()
    with pytest.raises(kind, match=words):
        model.fit(X, Y, verbose=0, **given)
    assert not model.built


def test_arguments_of_evaluate_and_predict():
    model = linear()
    for call in (lambda **given: model.evaluate(X, Y, **given), lambda **g: model.predict(X, **g)):
        with pytest.raises(TypeError, match="batch_size is 'a'"):
            call(batch_size="a")
        with pytest.raises(ValueError, match="steps is -1"):
            call(steps=-1)
        with pytest.raises(TypeError, match="callbacks holds 3"):
            call(callbacks=3)
    for x in ("abc", 3.0, b"abc"):
        with pytest.raises(ValueError, match="give arrays, or a dataset of batches"):
            model.predict(x)


def test_whole_numbers_of_numpy_are_whole_numbers():
    history = linear().fit(X, Y, batch_size=np.int64(8), epochs=np.int32(2), verbose=0)
    assert history.epoch == [0, 1]


def test_without_a_batch_size_so_many_steps_take_all_samples():
    same(
        weights_after(lambda m: m.fit(X, Y, steps_per_epoch=3, shuffle=False, verbose=0)),
        weights_after(lambda m: m.fit(X, Y, batch_size=14, shuffle=False, verbose=0)),
    )
    model = linear()
    whole = model.evaluate(X, Y, batch_size=40, verbose=0)
    np.testing.assert_allclose(model.evaluate(X, Y, steps=1, verbose=0), whole, rtol=1e-6)
    assert model.predict(X, steps=1, verbose=0).shape == (40, 1)
    assert model.predict(X, batch_size=7, steps=1, verbose=0).shape == (7, 1)


def test_a_batch_size_beside_a_dataset_is_not_used_and_said():
    """Keras takes it without a word."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    with pytest.warns(UserWarning, match=r"batch_size is 4, and not used: .*\.batch\(4\)"):
        linear().fit(data, batch_size=4, verbose=0)
    single = tf.data.Dataset.from_tensor_slices((X, Y))
    with pytest.raises(ValueError, match=r"lacks \.batch"):
        linear().fit(single, verbose=0)


def test_an_endless_dataset_with_its_steps_given():
    def trained(data, **options):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(1)])
        model.compile("sgd", "mse")
        return model.fit(data, epochs=2, verbose=0, **options).history["loss"]

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(20)
    steps = len(data)
    assert trained(data.repeat(), steps_per_epoch=steps) == trained(data)


def test_one_array_is_no_target_of_two_outputs():
    given = keras.Input((3,))
    model = keras.Model(given, [layers.Dense(2, name="a")(given), layers.Dense(2, name="b")(given)])
    x, y = np.ones((4, 3)), np.ones((4, 2))
    model.compile("sgd", "mse")
    for call in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match=r"y is one array, and 2 outputs.*\['a', 'b'\]"):
            call(x, y)
    model.fit(x, [y, y], verbose=0)
    model.compile("sgd", ["mse", None])
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"x": x}])
@pytest.mark.parametrize("stated", [True, False])
def test_a_sequential_model_takes_its_input_in_a_list(wrap, stated):
    first = [layers.Input((4,))] if stated else []
    model = keras.Sequential([*first, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(wrap(X), Y, verbose=0)
    np.testing.assert_array_equal(model.predict(wrap(X), verbose=0), model.predict(X, verbose=0))


def test_fewer_steps_than_batches_go_on_in_the_next_epoch():
    """Keras: of five batches two, two and one; then from the start again."""
    seen = []

    class Seen(keras.Model):
        def train_step(self, data):
            seen.append(float(data[0][0, 0]))
            return {"loss": 0.0}

    model = Seen()
    model.compile("sgd", run_eagerly=True)
    x = np.arange(9, dtype=np.float32)[:, None]
    model.fit(x, x, batch_size=2, epochs=4, steps_per_epoch=2, shuffle=False, verbose=0)
    assert seen == [0, 2, 4, 6, 8, 0, 2]


def test_one_callback_needs_no_list():
    seen = []

    class Note(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(epoch)

    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=Note())
    assert seen == [0, 1]


@pytest.mark.parametrize("kind", ["arrays", "dataset", "generator"])
def test_the_data_begin_with_the_initial_epoch(kind):
    """Steps of an epoch go on where those of the one before ended, not where none was before."""
    x = np.arange(10.0).reshape(10, 1)
    seen = []

    class Seen(tf.keras.Model):
        def train_step(self, data):
            seen.append(float(data[0][0, 0]))
            return {"loss": 0.0}

    model = Seen()
    model.compile("sgd", jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((x, x)).batch(2)
    data = {"arrays": (x, x), "dataset": (batches,), "generator": (iter(list(batches)),)}[kind]
    settings = {"initial_epoch": 2, "epochs": 4, "steps_per_epoch": 2, "shuffle": False}
    history = model.fit(*data, batch_size=2 if kind == "arrays" else None, verbose=0, **settings)
    assert history.epoch == [2, 3] and seen[-4:] == [0, 2, 4, 6]
