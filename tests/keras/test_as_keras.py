"""What fit, evaluate and the rest tell, number for number: those here are Keras 3.15.1's.

Keras (on TensorFlow 2.21, CPU) ran the same lines; what it gave stands in the tests.
"""

import numpy as np
import pytest

import distgrad as tf

keras, layers = tf.keras, tf.keras.layers
X = np.arange(24, dtype=np.float32).reshape(8, 3) / 10
Y = (np.arange(8) % 2).astype(np.float32)[:, None]
IN_ORDER = {"verbose": 0, "shuffle": False, "batch_size": 3}


def network(**settings):
    start = keras.initializers.Constant(0.3)
    hidden = layers.Dense(2, activation="tanh", kernel_initializer=start)
    model = keras.Sequential(
        [keras.Input((3,)), hidden, layers.Dense(1, kernel_initializer="ones")]
    )
    model.compile(**settings)
    return model


def close(found, expected):
    assert found == pytest.approx(expected, rel=3e-6)  # a few steps in float32 differ by 2e-6


def history_is(history, expected):
    assert list(history.history) == list(expected)
    for name, values in expected.items():
        close(history.history[name], values)


def test_metrics_keep_what_was_found_last():
    mae, mse = keras.metrics.MeanAbsoluteError(name="mae"), keras.metrics.MeanSquaredError(name="w")
    sgd = keras.optimizers.SGD(0.1)
    model = network(optimizer=sgd, loss="mse", metrics=[mae], weighted_metrics=[mse])

    def state():
        return [float(mae.result()), float(mse.result()), float(model.metrics[0].result())]

    model.fit(X, Y, sample_weight=np.arange(8.0), **IN_ORDER)
    close(state(), [0.7404191493988037, 1.3482214212417603, 4.718774795532227])
    model.evaluate(X[:4], Y[:4], verbose=0)
    close(state(), [1.0717079639434814, 1.393564224243164, 1.393564224243164])
    model.train_on_batch(X[:2], Y[:2])
    close(state(), [1.0664732456207275, 1.3773255348205566, 1.3773255348205566])
    assert {name: float(v) for name, v in model.get_metrics_result().items()} == pytest.approx(
        {"loss": 1.3773255348205566, "mae": 1.0664732456207275, "w": 1.3773255348205566}, rel=1e-5
    )
    model.reset_metrics()
    assert state() == [0, 0, 0]


def test_layers_frozen_after_compile_stay_and_the_others_train_on():
    """As in Keras's eager steps: a graph of a step trains on what it was made with.

    Keras rounds Adam's betas to float32: those here are such numbers.
    """
    adam = keras.optimizers.Adam(0.125, beta_1=0.5, beta_2=0.75)
    model = network(optimizer=adam, loss="mse")
    expected = {"loss": [0.37670583942263114, 0.46633239559371686]}
    history_is(model.fit(X, Y, epochs=2, **IN_ORDER), expected)
    kept = [np.array(w) for w in model.layers[0].get_weights()]
    model.layers[0].trainable = False
    found = model.fit(X, Y, epochs=2, **IN_ORDER)
    history_is(found, {"loss": [0.2877182864783417, 0.301228902318489]})
    for before, after in zip(kept, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(model.layers[1].get_weights()[0], [[0.436588898]] * 2, rtol=3e-6)
    model.layers[0].trainable = True
    history_is(model.fit(X, Y, **IN_ORDER), {"loss": [0.2802800185405911]})


class Meaning(layers.Layer):
    """Gives what it computes to a metric of its own."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, kernel_initializer="ones")
        self.mean = keras.metrics.Mean(name="mean_out")

    def call(self, x):
        found = self.dense(x)
        self.mean.update_state(found)
        return found


@pytest.mark.parametrize("shards", ["1", "2"])
def test_metrics_of_layers_are_told(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    model = keras.Sequential(
        [keras.Input((3,)), Meaning(), layers.Dense(1, kernel_initializer="ones")]
    )
    model.compile(keras.optimizers.SGD(0.001), "mse", metrics=["mae"])
    expected = {
        "loss": [50.72258758544922, 27.78199577331543],
        "mae": [6.096262454986572, 4.441821098327637],
        "mean_out": [3.407618522644043, 3.1710150241851807],
        "val_loss": [0.31628623604774475, 0.06771080195903778],
        "val_mae": [0.5324715375900269, 0.2562606632709503],
        "val_mean_out": [0.6641912460327148, 0.6127407550811768],
    }
    history_is(model.fit(X, Y, epochs=2, validation_data=(X[:2], Y[:2]), **IN_ORDER), expected)
    expected = [18.388628005981445, 3.527343273162842, 3.042266607284546]
    close(model.evaluate(X, Y, verbose=0), expected)
    assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics", "mean_out"]


def test_restored_weights_come_after_averages():
    def trained(*callbacks):
        sgd = keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.9)
        model = network(optimizer=sgd, loss="mse")
        model.fit(X, Y, epochs=3, callbacks=list(callbacks), **IN_ORDER)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    best = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    expected = [*np.repeat([0.116044, 0.094745, 0.073446, -0.212989, 0.812524], 2), -0.335453]
    np.testing.assert_allclose(trained(best), expected, atol=2e-6)
    expected = [*np.repeat([0.183676, 0.182032, 0.180388, -0.016442, 0.698692], 2), -0.166053]
    np.testing.assert_allclose(trained(), expected, atol=2e-6)


def two_outputs(**settings):
    x = keras.Input((3,))
    zed = layers.Dense(1, name="zed", kernel_initializer="ones")(x)
    alpha = layers.Dense(1, name="alpha", kernel_initializer="ones", activation="tanh")(x)
    model = keras.Model(x, [zed, alpha])
    model.compile(keras.optimizers.SGD(0.01), **settings)
    return model


def test_results_of_several_outputs_in_the_order_of_keras():
    own = keras.metrics.MeanSquaredError(name="m")
    model = two_outputs(
        loss=["mse", "mae"], metrics=[["mae"], [own, "mae"]], loss_weights=[0.5, 2.0]
    )
    expected = {
        "alpha_loss": [0.4290491044521332],
        "alpha_m": [0.38157957792282104],
        "alpha_mae": [0.4290491044521332],
        "loss": [6.732175827026367],
        "zed_loss": [11.74815559387207],
        "zed_mae": [2.853713035583496],
    }
    history_is(model.fit(X, [Y, Y], **IN_ORDER), expected)
    names = ["loss", "zed_loss", "alpha_loss", "alpha_m", "alpha_mae", "zed_mae"]
    values = [4.973016738891602, 8.231338500976562, 0.4286738634109497]
    values += [0.38127565383911133, 0.4286738634109497, 2.3323307037353516]
    close(model.evaluate(X, [Y, Y], verbose=0), values)
    by_name = model.evaluate(X, [Y, Y], verbose=0, return_dict=True)
    assert list(by_name) == sorted(names)
    close([by_name[name] for name in names], values)
    assert own.name == "m" and model.metrics_names == names


@pytest.mark.parametrize("metrics", [[["mae"], ["mae"]], {"alpha": "mae"}, None])
def test_one_loss_for_several_outputs_may_have_weights_and_metrics_by_output(metrics):
    model = two_outputs(loss="mse", metrics=metrics, loss_weights=[0.5, 2.0])
    found = model.evaluate(X, [Y, Y], verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(0.5 * found["zed_loss"] + 2 * found["alpha_loss"])
    assert ("alpha_mae" in found) == (metrics is not None)


def test_given_steps_end_where_the_data_does():
    model = network(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    with pytest.warns(UserWarning, match="ended after"):
        found = model.fit(data, steps_per_epoch=2, epochs=3, verbose=0)
    history_is(found, {"loss": [0.6198418736457825, 0.6385276913642883, 0.4868417978286743]})
    with pytest.warns(UserWarning, match="ended after 3 of 5 steps"):
        found = model.fit(data, steps_per_epoch=5, epochs=2, verbose=0)
    history_is(found, {"loss": [0.32238849997520447, 0.36376598477363586]})
    with pytest.warns(UserWarning, match="ended after 3 of 7 steps"):
        close(model.evaluate(data, steps=7, verbose=0), 0.33721137046813965)


def test_each_batch_is_told_of_by_itself():
    model = network(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    found = [model.train_on_batch(X[i : i + 2], Y[i : i + 2]) for i in (0, 2, 4)]
    expected = [0.06403030455112457, 0.24454374611377716, 0.8166301250457764]
    expected += [0.8363369107246399, 0.5807398557662964, 0.6426879167556763]
    close(np.ravel(found).tolist(), expected)
    found = [model.test_on_batch(X[i : i + 2], Y[i : i + 2], return_dict=True) for i in (0, 4)]
    assert found[0] == pytest.approx({"loss": 0.8900641798973083, "mae": 0.8583133220672607})
    assert found[1] == pytest.approx({"loss": 0.17325013875961304, "mae": 0.4134235382080078})


class Told(keras.callbacks.Callback):
    """Remembers what it was told, and how."""

    def __init__(self):
        super().__init__()
        self.events, self.settings = [], {}

    def on_train_end(self, logs=None):
        self.events.append(list(logs))

    def on_test_begin(self, logs=None):
        self.settings["test"] = {**self.params}

    def on_test_end(self, logs=None):
        self.events.append(list(logs))

    def on_test_batch_end(self, batch, logs=None):
        self.events.append(batch)

    def on_predict_begin(self, logs=None):
        self.settings["predict"] = {**self.params}


def test_what_callbacks_are_told():
    model = network(optimizer="sgd", loss="mse", metrics=["mae"])
    told, rate = Told(), keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    found = model.fit(X, Y, validation_split=0.5, validation_batch_size=2, callbacks=[told, rate])
    # sorted by name; what others add at the end of an epoch is not in the logs of the end
    logs = ["loss", "mae", "val_loss", "val_mae"]
    assert told.events == [0, 1, ["loss", "mae"], logs]
    assert list(found.history) == [*logs, "learning_rate"]
    model.evaluate(X, Y, batch_size=3, verbose=0, callbacks=[told])
    model.predict(X, batch_size=3, verbose=0, callbacks=[told])
    for settings in told.settings.values():
        settings.pop("rank")  # ours alone
        assert settings == {"verbose": 0, "epochs": 1, "steps": 3}
    assert set(told.settings) == {"test", "predict"}


def test_an_optimizer_lists_its_state_as_keras_does():
    shapes = {
        "Adam": [(), (), (3, 2), (3, 2), (2,), (2,)],
        "RMSprop": [(), (), (3, 2), (2,)],
        "Nadam": [(), (), (3, 2), (3, 2), (2,), (2,), ()],
        "Adafactor": [(), (), (3,), (2,), (3, 2), (), (), (2,)],
    }
    for name, expected in shapes.items():
        optimizer = getattr(keras.optimizers, name)()
        optimizer.build([tf.Variable(tf.zeros((3, 2))), tf.Variable(tf.zeros(2))])
        assert [tuple(v.shape) for v in optimizer.variables] == expected, name


def test_a_loss_scale_factor_leaves_steps_as_they_are():
    def trained(by_tape, **settings):
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=0.5, **settings)
        model = network(optimizer=optimizer, loss="mse")
        assert float(optimizer.scale_loss(tf.constant(2.0))) == 2 * settings.get(
            "loss_scale_factor", 1
        )
        if not by_tape:
            model.fit(X, Y, **IN_ORDER)
            return model.get_weights()
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(tf.reduce_mean((model(X) - Y) ** 2))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return model.get_weights()

    for by_tape in (False, True):
        plain, scaled = trained(by_tape), trained(by_tape, loss_scale_factor=1024.0)
        for one, other in zip(plain, scaled, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_what_a_sequential_model_cannot_take():
    model = network(optimizer="sgd", loss="mse")
    with pytest.raises(ValueError, match="has shape"):
        model.predict(np.zeros((2, 3, 3, 3)), verbose=0)
    with pytest.raises(ValueError, match="takes one input, 2 were given"):
        model([X, X])
    with pytest.raises(ValueError, match="no layers"):
        keras.Sequential()(X)


MASKED = {
    False: {
        "accuracy": [0.3548387289047241] * 2,
        "loss": [1.2940843105316162, 1.1570829153060913],
        "sparse_categorical_crossentropy": [1.3167155981063843, 1.167788028717041],
        "val_accuracy": [0.2666666805744171] * 2,
        "val_loss": [1.2323331832885742, 1.1532179117202759],
        "val_sparse_categorical_crossentropy": [1.250691533088684, 1.1597051620483398],
        "val_weighted_accuracy": [0.2666666805744171] * 2,
        "weighted_accuracy": [0.3548387289047241] * 2,
    },
    True: {  # with a weight for each step
        "accuracy": [0.3548387289047241] * 2,
        "loss": [1.6318546533584595, 1.414170265197754],
        "sparse_categorical_crossentropy": [1.311883807182312, 1.118764877319336],
        "val_accuracy": [0.2666666805744171] * 2,
        "val_loss": [1.2171536684036255, 1.1743476390838623],
        "val_sparse_categorical_crossentropy": [1.225568413734436, 1.1696281433105469],
        "val_weighted_accuracy": [0.2666666805744171] * 2,
        "weighted_accuracy": [0.37115833163261414] * 2,
    },
}


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_masked_steps_do_not_count_in_metrics(weighted, eager):
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 6, (10, 5))
    tokens[:, 3:] *= rng.random((10, 1)) < 0.5
    tokens[0] = 0
    targets = rng.integers(0, 3, (10, 5))
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Embedding(6, 3, mask_zero=True),
            layers.LSTM(4, return_sequences=True),
            layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) * 0.7 for w in model.get_weights()])
    names = ["accuracy", "sparse_categorical_crossentropy"]
    loss, sgd = keras.losses.SparseCategoricalCrossentropy(), keras.optimizers.SGD(0.5)
    model.compile(sgd, loss, metrics=names[:1], weighted_metrics=names, run_eagerly=eager)
    weights = np.arange(50).reshape(10, 5) / 20 if weighted else None
    held = (tokens[:6], targets[:6])
    settings = {"batch_size": 4, "epochs": 2, "shuffle": False, "validation_data": held}
    found = model.fit(tokens, targets, sample_weight=weights, verbose=0, **settings)
    history_is(found, MASKED[weighted])


def test_arguments_that_lie_where_keras_has_them():
    tensor = keras.KerasTensor((2, 3), "int32", False, False, True, "a")
    assert (tensor.shape, tensor.dtype, tensor.name) == ((2, 3), "int32", "a")
    with pytest.raises(ValueError, match="sparse or ragged"):
        keras.KerasTensor((2,), sparse=True, ragged=True)
    assert keras.tree.is_nested(structure=[1]) and not keras.tree.is_nested(structure=1)
    metric = keras.metrics.Mean()
    assert metric.add_variable((), "ones", None, "sum", "a").name == "a"
    query = np.ones((1, 2, 3), np.float32)
    outputs, scores = keras.layers.Attention()([query, query], None, False, True)
    assert outputs.shape == (1, 2, 3) and scores.shape == (1, 2, 2)
