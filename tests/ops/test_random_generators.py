"""random: distributions, generators, and seeds for stateless functions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

import distgrad as tf

R, IAE = tf.random, tf.errors.InvalidArgumentError
N = 20_000
LEVEL = 1e-4  # of a false alarm, at seeds that are fixed: it cannot come and go


def sources(name):
    """The same distribution from the global stream, a generator and a stateless function."""
    generator = R.Generator.from_seed(11)
    yield lambda *a, **k: getattr(R, name)((N,), *a, **k)
    yield lambda *a, **k: getattr(generator, name)((N,), *a, **k)
    yield lambda *a, **k: getattr(R, f"stateless_{name}")((N,), [3, 4], *a, **k)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
@pytest.mark.parametrize(
    "name, arguments, exact",
    [
        ("normal", (), scipy.stats.norm()),
        ("normal", (3.0, 0.5), scipy.stats.norm(3.0, 0.5)),
        ("uniform", (), scipy.stats.uniform()),
        ("uniform", (-2.0, 3.0), scipy.stats.uniform(-2.0, 5.0)),
        ("truncated_normal", (), scipy.stats.truncnorm(-2, 2)),
        ("truncated_normal", (1.0, 2.0), scipy.stats.truncnorm(-2, 2, 1.0, 2.0)),
    ],
)
def test_distributions(name, arguments, exact, dtype):
    """Kolmogorov-Smirnov, for every way to draw."""
    tf.random.set_seed(1)
    for draw in sources(name):
        x = draw(*arguments, dtype=dtype)
        assert x.dtype == dtype and x.shape == (N,)
        # float16 has so few values that ties alone shift the statistic; spread them evenly.
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, N) if dtype == tf.float16 else 0.0
        values = x.numpy().astype(float) + noise * np.spacing(np.abs(x.numpy())).astype(float)
        assert scipy.stats.kstest(values, exact.cdf).pvalue > LEVEL


def test_the_test_of_distributions_can_fail():
    tf.random.set_seed(1)
    assert scipy.stats.kstest(R.normal((N,), 0.05), "norm").pvalue < LEVEL


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.uint8])
def test_integers_are_even(dtype):
    tf.random.set_seed(1)
    for draw in sources("uniform"):
        counts = np.bincount(draw(minval=2, maxval=9, dtype=dtype).numpy(), minlength=9)
        assert not counts[:2].any() and scipy.stats.chisquare(counts[2:]).pvalue > LEVEL


@pytest.mark.parametrize("dtype", [tf.int8, tf.uint8, tf.int32, tf.int64])
def test_integers_of_the_whole_range(dtype):
    """`minval` and `maxval` both None: all integers of the dtype."""
    x = R.stateless_uniform((N,), [1, 2], minval=None, maxval=None, dtype=dtype).numpy()
    info = np.iinfo(dtype.as_numpy_dtype)
    spread = (x.astype(float) - info.min) / (float(info.max) - info.min)
    assert spread.min() < 0.01 and spread.max() > 0.99 and abs(spread.mean() - 0.5) < 0.02


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_a_generator_replays_from_its_seed(seed):
    def draws(g):
        return [g.normal((3,)), g.uniform((3,)), g.truncated_normal((3,)), g.make_seeds(2)]

    one, two = R.Generator.from_seed(seed), R.Generator.from_seed(seed)
    first, second = draws(one), draws(one)
    for a, b in zip(first, draws(two), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first, second, strict=True):
        assert not np.array_equal(a, b)
    one.reset_from_seed(seed)
    np.testing.assert_array_equal(one.normal((3,)), first[0])


def test_make_seeds_and_split():
    g = R.Generator.from_seed(1)
    seeds = g.make_seeds(3)
    assert seeds.shape == (2, 3) and seeds.dtype == tf.int64 and g.make_seeds().shape == (2, 1)
    assert len({tuple(c) for c in np.transpose(seeds)}) == 3
    R.stateless_normal((2,), seeds[:, 0])
    parts = g.split(4)
    drawn = [tuple(p.normal((4,)).numpy()) for p in [g, *parts]]
    assert len(set(drawn)) == 5 and g.split(0) == []
    again = R.Generator.from_seed(1)
    again.make_seeds(3), again.make_seeds()
    assert [tuple(p.normal((4,)).numpy()) for p in again.split(4)] == drawn[1:]


def test_the_global_generator():
    before = R.get_global_generator()
    assert R.get_global_generator() is before
    try:
        R.set_global_generator(R.Generator.from_seed(3))
        first = R.get_global_generator().normal((2,))
        np.testing.assert_array_equal(first, R.Generator.from_seed(3).normal((2,)))
        with pytest.raises(TypeError, match="not 3"):
            R.set_global_generator(3)
    finally:
        R.set_global_generator(before)


def test_split_and_fold_in():
    """New seeds from one: always the same, all different, and no draw of the seed's own."""
    seed = [1, 2]
    three = R.split(seed, num=3)
    assert three.shape == (3, 2) and three.dtype == tf.int32 and R.split(seed).shape == (2, 2)
    np.testing.assert_array_equal(three, R.split(tf.constant(seed), num=3))
    folded = [R.fold_in(seed, i) for i in (0, 1, -1, 2**33)]
    assert folded[0].shape == (2,) and folded[0].dtype == tf.int32
    wide = tf.constant(seed, tf.int64)
    assert R.split(wide).dtype == R.fold_in(seed, wide[0]).dtype == tf.int64
    np.testing.assert_array_equal(tf.cast(R.split(wide, 3), tf.int32), three)
    with pytest.raises(IAE, match="are scalars"):
        R.stateless_uniform([2], seed, 0, [3, 4], tf.int32)
    seeds = [seed, *three.numpy().tolist(), *(f.numpy().tolist() for f in folded)]
    assert len({tuple(s) for s in seeds}) == 8
    assert len({tuple(R.stateless_normal((3,), s).numpy()) for s in seeds}) == 8
    own = R.stateless_uniform((3, 2), seed, minval=None, maxval=None, dtype=tf.int32)
    assert not np.array_equal(own, three)
    for bad in ([1], [1.0, 2.0], 3):
        for make in (R.split, lambda s: R.fold_in(s, 1)):
            with pytest.raises(IAE, match="two ints"):
                make(bad)


def test_stateless_categorical():
    chances = np.array([[0.1, 0.2, 0.7]])
    x = R.stateless_categorical(np.log(chances), N, seed=[5, 6])
    assert x.shape == (1, N) and x.dtype == tf.int64
    np.testing.assert_array_equal(x, R.stateless_categorical(np.log(chances), N, seed=[5, 6]))
    counts = np.bincount(x.numpy()[0], minlength=3)
    assert scipy.stats.chisquare(counts, N * chances[0]).pvalue > LEVEL
    assert R.stateless_categorical([[0.0, 1.0]], 2, [1, 2], dtype=tf.int32).dtype == tf.int32
    with pytest.raises(IAE, match="rank 2"):
        R.stateless_categorical([0.0, 1.0], 2, seed=[1, 2])


def test_streams_do_not_meet():
    """Global, seeded, stateless and generator draws of one number are all different numbers."""
    tf.random.set_seed(5)
    drawn = [R.normal((4,)), R.normal((4,), seed=5), R.stateless_normal((4,), [5, 0])]
    drawn += [R.Generator.from_seed(5).normal((4,)), R.stateless_normal((4,), [5, -1])]
    assert len({tuple(x.numpy()) for x in drawn}) == len(drawn)


def test_generators_go_on_from_their_state(tmp_path):
    generator = R.Generator.from_seed(5)
    generator.normal([3])
    state = generator.state
    assert state.dtype == tf.int64 and state.shape == (3,) and generator.key == 5
    expected = generator.uniform([4]).numpy()
    np.testing.assert_array_equal(R.Generator.from_state(state).uniform([4]), expected)
    generator.reset(state)
    np.testing.assert_array_equal(generator.uniform([4]), expected)
    generator.reset(state)
    generator.skip(1)
    assert (generator.uniform([4]).numpy() != expected).all()
    np.testing.assert_array_equal(R.create_rng_state(5), R.Generator.from_seed(5).state)
    with pytest.raises(IAE, match="three whole numbers"):
        generator.reset([1, 2])


@pytest.mark.parametrize("seed", [7, 2**63 + 5])
def test_checkpoints_keep_generators(tmp_path, seed):
    generator = R.Generator.from_seed(seed)
    saver = tf.train.Checkpoint(model=[generator])
    generator.normal([2])
    path = saver.write(tmp_path / "state")
    expected = generator.normal([2]).numpy()
    saver.read(path).assert_consumed()
    np.testing.assert_array_equal(generator.normal([2]), expected)
    other = R.Generator.from_seed(0)
    tf.train.Checkpoint(model=[other]).read(path)
    np.testing.assert_array_equal(other.normal([2]), expected)


def test_generators_draw_whole_numbers_and_successes():
    generator = R.Generator.from_seed(1)
    whole = generator.uniform_full_int([N], dtype=tf.int16).numpy()
    assert whole.min() < -32_000 and whole.max() > 32_000
    found = generator.binomial([N], counts=[10.0], probs=[0.3])
    assert found.dtype == tf.int32 and found.numpy().mean() == pytest.approx(3, abs=0.1)


def test_stateless_shuffles_depend_on_the_seed_alone():
    orders = [R.experimental.stateless_shuffle(tf.range(30), seed=s) for s in ([1, 2], [1, 3])]
    again = R.experimental.stateless_shuffle(tf.range(30), seed=[1, 2])
    np.testing.assert_array_equal(orders[0], again)
    assert sorted(orders[1].numpy()) == list(range(30)) and (orders[0] != orders[1]).numpy().any()


def test_algorithms_have_tensorflow_s_names():
    one = R.Generator.from_seed(3, alg=R.Algorithm.PHILOX)
    np.testing.assert_array_equal(one.normal([4]), R.Generator.from_seed(3, "philox").normal([4]))
    assert R.Algorithm(one.algorithm) is R.experimental.Algorithm.PHILOX


def test_a_generator_goes_on_where_another_one_stands():
    first = tf.random.Generator.from_seed(3)
    first.normal([2])
    twin = tf.random.Generator(copy_from=first)
    again = tf.random.Generator(state=first.state, alg="philox")
    expected = first.normal([3]).numpy()
    np.testing.assert_array_equal(twin.normal([3]), expected)
    np.testing.assert_array_equal(again.normal([3]), expected)
    made = tf.random.Generator.from_key_counter(7, [1, 2], "philox")
    assert made.state.numpy().tolist() == [1, 2, 7]
    for arguments in ({}, {"copy_from": first, "state": [0, 0, 1]}):
        with pytest.raises(ValueError, match="copy_from"):
            tf.random.Generator(**arguments)


def test_a_generator_from_another_or_a_state():
    first = tf.random.Generator.from_seed(-3)
    first.normal([2])
    again = tf.random.Generator(copy_from=first)
    third = tf.random.Generator(state=first.state, alg="philox")
    place = first.state.numpy()
    fourth = tf.random.Generator.from_key_counter(int(place[2]), place[:2])
    fifth = tf.random.Generator.from_seed(1)
    fifth.reset_from_key_counter(int(place[2]), place[:2])
    numbers = first.normal([3]).numpy()
    for other in (again, third, fourth, fifth):
        assert np.array_equal(other.normal([3]), numbers)
    with pytest.raises(ValueError, match="copy_from"):
        tf.random.Generator()


@pytest.mark.parametrize("name", ["normal", "truncated_normal", "uniform"])
def test_an_algorithm_may_be_named_and_changes_no_number(name):
    draw = getattr(R, f"stateless_{name}")
    np.testing.assert_array_equal(draw((3,), [1, 2], alg="philox"), draw((3,), [1, 2]))
