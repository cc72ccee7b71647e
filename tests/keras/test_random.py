"""keras.random: seeds, seed generators, and what they give in training."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras, layers = tf.keras, tf.keras.layers
DRAWS = [
    lambda seed: keras.random.normal((3, 4), seed=seed),
    lambda seed: keras.random.uniform((3, 4), -1.0, 1.0, seed=seed),
    lambda seed: keras.random.truncated_normal((3, 4), seed=seed),
    lambda seed: keras.random.randint((3, 4), 0, 1000, seed=seed),
    lambda seed: keras.random.dropout(tf.ones((30, 4)), 0.5, seed=seed),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_a_seed_repeats_and_a_generator_goes_on(draw):
    np.testing.assert_array_equal(draw(3), draw(3))
    assert (draw(3).numpy() != draw(4).numpy()).any()
    one, two = keras.random.SeedGenerator(7), keras.random.SeedGenerator(7)
    first, second = draw(one).numpy(), draw(one).numpy()
    assert (first != second).any()
    np.testing.assert_array_equal(draw(two), first)
    np.testing.assert_array_equal(draw(two), second)
    for free in (None, keras.random.SeedGenerator()):
        tf.random.set_seed(1)
        before = draw(free).numpy()
        tf.random.set_seed(1)
        np.testing.assert_array_equal(draw(free), before)


def test_a_generator_is_made_again_from_its_config():
    made = keras.random.SeedGenerator(np.int64(7), name="seeds")
    again = keras.random.SeedGenerator.from_config(made.get_config())
    assert again.name == "seeds"
    for draw in DRAWS:
        np.testing.assert_array_equal(draw(made), draw(again))
    with pytest.raises(ValueError, match="must be an integer. Received: seed=0.5"):
        keras.random.SeedGenerator(0.5)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments: {'some': 2}"):
        keras.random.SeedGenerator(1, some=2)


def test_the_state_of_a_generator_says_where_it_stands():
    seeds = keras.random.SeedGenerator(7)
    assert seeds.state.numpy().tolist() == [7, 0]
    first, second = keras.random.normal((3,), seed=seeds), keras.random.normal((3,), seed=seeds)
    assert np.asarray(seeds.state).tolist() == [7, 2]
    seeds.state.assign([7, 1])
    np.testing.assert_array_equal(keras.random.normal((3,), seed=seeds), second)
    seeds.state.assign([7, 0])
    np.testing.assert_array_equal(keras.random.normal((3,), seed=seeds), first)
    assert not hasattr(keras.random.SeedGenerator(), "state")


def test_a_generator_gives_seeds_for_stateless_functions():
    one, two = keras.random.SeedGenerator(7), keras.random.SeedGenerator(7)
    pairs = [one.next() for _ in range(3)]
    assert all(pair.shape == (2,) and pair.dtype == tf.int64 for pair in pairs)
    assert len({tuple(pair.numpy()) for pair in pairs}) == 3
    drawn = tf.random.stateless_normal((3,), two.next())
    np.testing.assert_array_equal(tf.random.stateless_normal((3,), pairs[0]), drawn)
    tf.random.set_seed(1)
    free = keras.random.SeedGenerator().next()
    tf.random.set_seed(1)
    np.testing.assert_array_equal(keras.random.SeedGenerator().next(), free)


def test_ranges_and_dtypes():
    numbers = keras.random.randint((500,), 2, 5, seed=1).numpy()
    assert numbers.dtype == np.int32 and set(numbers) == {2, 3, 4}
    assert keras.random.normal((2,), dtype="float64").dtype == "float64"
    values = keras.random.uniform((500,), 2.0, 3.0, seed=1).numpy()
    assert values.min() >= 2 and values.max() < 3
    kept = keras.random.dropout(tf.ones((400, 3)), 0.25, noise_shape=(400, 1), seed=1).numpy()
    assert set(np.unique(kept)) == {0.0, np.float32(4 / 3)}
    assert (kept == kept[:, :1]).all() and 0.7 < (kept > 0).mean() < 0.8
    again = keras.random.dropout(tf.ones((400, 3)), 0.25, noise_shape=(None, 1), seed=1)
    np.testing.assert_array_equal(again, kept)
    assert not keras.random.dropout(tf.ones((2, 3)), 1.0, seed=1).numpy().any()
    with pytest.raises(ValueError, match="randint.*float32.*uniform"):
        keras.random.randint((2,), 0, 3, dtype="float32")
    with pytest.raises(ValueError, match="uniform.*int32.*randint"):
        keras.random.uniform((2,), 0, 3, dtype="int32")


@pytest.mark.parametrize("jit", [False, True])
def test_a_layer_draws_anew_in_every_step_of_training(jit):
    """As the sampling layer of Keras's variational autoencoder does."""

    class Noise(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(1337)

        def call(self, x):
            return x + keras.random.normal(tf.shape(x), seed=self.seed_generator)

    def losses():
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((2,)), Noise(), layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit)
        x, y = np.zeros((8, 2), np.float32), np.zeros((8, 1), np.float32)
        return model.fit(x, y, epochs=4, shuffle=False, verbose=0).history["loss"]

    first = losses()
    assert len(set(first)) == 4
    assert losses() == first
