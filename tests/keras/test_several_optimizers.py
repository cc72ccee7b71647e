"""MultiOptimizer: one optimizer for some variables, another one for others."""

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
optimizers, layers = keras.optimizers, keras.layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 24)


def network(optimizer, **more):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, name="one"), layers.Dense(3, name="two")], name="net"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **more)
    return model


def mapped():
    return optimizers.OptimizerMap(
        optimizers.SGD(0.1, momentum=0.9), {"net/two/.*": optimizers.Adam(0.01, clipnorm=0.1)}
    )


def test_each_variable_goes_by_its_own_optimizer():
    first, second = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
    alone = [tf.Variable([1.0, 2.0]), tf.Variable([3.0])]
    own = [optimizers.SGD(0.1, momentum=0.5), optimizers.Adam(0.1, clipvalue=1.0)]
    both = optimizers.MultiOptimizer(lambda v: own[1] if v is second else own[0])
    others = [optimizers.SGD(0.1, momentum=0.5), optimizers.Adam(0.1, clipvalue=1.0)]
    for _ in range(3):
        both.apply([tf.constant([1.0, -2.0]), tf.constant([5.0])], [first, second])
        others[0].apply([tf.constant([1.0, -2.0])], alone[:1])
        others[1].apply([tf.constant([5.0])], alone[1:])
    np.testing.assert_array_equal(first, alone[0])
    np.testing.assert_array_equal(second, alone[1])
    assert both.optimizers == own and [int(o.iterations) for o in (both, *own)] == [3, 3, 3]


@pytest.mark.parametrize("eager", [True, False])
def test_in_fit_as_if_there_were_one_model_each(eager):
    """With the other layer frozen, its own optimizer does the same to each."""
    model = network(optimizers.MultiOptimizer(mapped()), run_eagerly=eager)
    model.fit(X[:8], Y[:8], batch_size=8, shuffle=False, verbose=0)
    for name, optimizer in (
        ("one", optimizers.SGD(0.1)),
        ("two", optimizers.Adam(0.01, clipnorm=0.1)),
    ):
        other = network(optimizer)
        other.get_layer("two" if name == "one" else "one").trainable = False
        other.fit(X[:8], Y[:8], batch_size=8, shuffle=False, verbose=0)
        for found, expected in zip(
            model.get_layer(name).get_weights(), other.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_callbacks_see_to_the_rates_and_averages_of_each():
    own = [optimizers.SGD(0.4), optimizers.SGD(0.2, use_ema=True, ema_momentum=0.5)]
    model = network(optimizers.MultiOptimizer(lambda v: own[v.path.startswith("net/two")]))
    kernel, seen = model.get_layer("two").kernel, []
    each = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0),
        keras.callbacks.SwapEMAWeights(),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(kernel.numpy()),
            on_test_begin=lambda logs: seen.append(kernel.numpy()),
        ),
    ]
    given = {"batch_size": 8, "epochs": 3, "validation_data": (X, Y), "callbacks": each}
    history = model.fit(X, Y, verbose=0, **given).history
    assert history["learning_rate_sgd"] == pytest.approx([0.2, 0.1, 0.025])
    assert history["learning_rate_sgd_1"] == pytest.approx([0.1, 0.05, 0.0125])
    assert [float(o.learning_rate) for o in own] == pytest.approx([0.0125, 0.00625])
    assert [(seen[i] != seen[i + 1]).any() for i in (0, 2, 4)] == [True] * 3
    plain = network(optimizers.MultiOptimizer(mapped()))
    with pytest.raises(ValueError, match="use_ema"):
        plain.evaluate(X, Y, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])


def test_a_saved_one_goes_on(tmp_path):
    pytest.importorskip("h5py")
    model = network(optimizers.MultiOptimizer(mapped()))
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for each in (model, again):
        each.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_paths_and_patterns():
    a, b, c = (optimizers.SGD(name=name) for name in "abc")
    chosen = optimizers.OptimizerMap(c)
    chosen["encoder/layer_0/dense"], chosen["encoder/.*"], chosen["decoder"] = a, b, a
    paths = ("decoder", "encoder/layer_0/dense", "encoder/layer_1", "decoder/layer_0")
    assert [chosen[path].name for path in paths] == ["a", "a", "b", "c"]
    assert len(chosen) == 3 and list(chosen)[-1] == "decoder"
    chosen["enc.*"] = a
    with pytest.raises(ValueError, match="Multiple optimizers"):
        chosen["encoder/layer_1"]


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: optimizers.OptimizerMap("sgd"), TypeError),
        (lambda: optimizers.OptimizerMap(optimizers.SGD(), []), TypeError),
        (lambda: mapped().update({"net/two/.*": optimizers.SGD()}), ValueError),
        (lambda: mapped().update({3: optimizers.SGD()}), ValueError),
        (lambda: mapped().update({"a": "sgd"}), ValueError),
        (lambda: optimizers.MultiOptimizer(lambda v: "sgd").build([tf.Variable(1.0)]), ValueError),
        (
            lambda: mapped().update({"a": optimizers.LossScaleOptimizer(optimizers.SGD())}),
            ValueError,
        ),
        (lambda: optimizers.MultiOptimizer(mapped()).learning_rate, AttributeError),
        (
            lambda: setattr(optimizers.MultiOptimizer(mapped()), "learning_rate", 1.0),
            AttributeError,
        ),
    ],
)
def test_errors(call, error):
    with pytest.raises(error):
        call()
