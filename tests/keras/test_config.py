"""keras.config, keras.backend, keras.tree, keras.dtype_policies, and names at the top."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
Point = namedtuple("Point", "x y")


@pytest.fixture(autouse=True)
def as_before():
    yield
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    keras.config.enable_interactive_logging()


def test_settings_mean_something():
    assert keras.layers.Conv2D(1, 1).data_format == "channels_last"
    keras.config.set_image_data_format("channels_first")
    assert keras.layers.Conv2D(1, 1).data_format == "channels_first"
    assert keras.backend.image_data_format() == "channels_first"
    assert keras.ops.conv(np.ones((1, 2, 4, 4)), np.ones((1, 1, 2, 3))).shape == (1, 3, 4, 4)
    sure = float(keras.losses.binary_crossentropy([[0.0]], [[1.0]])[0])
    keras.config.set_epsilon(1e-3)
    unsure = float(keras.losses.binary_crossentropy([[0.0]], [[1.0]])[0])
    assert unsure == pytest.approx(-np.log(1e-3), rel=1e-5) and sure > 15
    keras.config.set_floatx("float64")
    assert keras.layers.Dense(1).dtype == keras.backend.floatx() == "float64"
    assert keras.DTypePolicy().name == "float64"
    for call in (
        lambda: keras.config.set_image_data_format("channels_middle"),
        lambda: keras.config.set_floatx("int8"),
        lambda: keras.config.set_backend("jax"),
        lambda: keras.config.set_max_epochs(0),
    ):
        with pytest.raises(ValueError):
            call()


def test_a_long_script_is_tried_out():
    keras.config.set_max_epochs(2)
    keras.config.set_max_steps_per_epoch(3)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((80, 2), "float32")
    history = model.fit(x, x[:, :1], batch_size=8, epochs=100, verbose=0)
    assert len(history.epoch) == 2 and int(model.optimizer.iterations) == 6


def test_helpers_about_dtypes():
    backend = keras.backend
    assert backend.standardize_dtype(np.float32) == backend.standardize_dtype(None) == "float32"
    assert backend.standardize_dtype(int) == "int64" and backend.result_type("int8", float)
    assert backend.is_float_dtype("bfloat16") and not backend.is_float_dtype("int8")
    assert backend.is_int_dtype("uint8") and not backend.is_int_dtype("bool")
    assert [backend.get_uid("a"), backend.get_uid("a"), backend.get_uid("b")] == [1, 2, 1]
    backend.clear_session()
    assert backend.get_uid("a") == 1
    assert backend.standardize_dtype("string") == backend.standardize_dtype(str) == "string"
    assert backend.result_type() == backend.result_type(None, "int8") == "float32"
    for call in (backend.standardize_dtype, backend.result_type):
        with pytest.raises(ValueError, match="florp"):
            call("florp")


def test_policies():
    policies = keras.dtype_policies
    mixed = policies.get("mixed_bfloat16")
    again = policies.deserialize(policies.serialize(mixed))
    assert again == mixed and again.compute_dtype == "bfloat16"
    assert keras.layers.Dense(1, dtype=again).variable_dtype == "float32"
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert keras.DTypePolicy().name == keras.config.dtype_policy().name == "mixed_bfloat16"
    for call in (policies.get, keras.config.set_dtype_policy):
        with pytest.raises(ValueError, match="5"):
            call(5)
    with pytest.raises(TypeError, match="5"):
        keras.DTypePolicy(5)


def test_nests():
    tree = keras.tree
    nest = {"b": [1, (2, 3)], "a": Point(4, [5])}
    assert tree.flatten_with_path(nest) == [
        *((("a", 0), 4), (("a", 1, 0), 5)),
        *((("b", 0), 1), (("b", 1, 0), 2), (("b", 1, 1), 3)),
    ]
    assert tree.map_structure(lambda x: -x, nest) == {"b": [-1, (-2, -3)], "a": Point(-4, [-5])}
    assert tree.map_structure(lambda x: 1, [None, 2], none_is_leaf=False) == [None, 1]
    assert tree.map_structure_up_to([0, 0], lambda a, b: (a, b), [[1], 2], ["x", {"y": 3}]) == [
        ([1], "x"),
        (2, {"y": 3}),
    ]
    assert tree.lists_to_tuples([1, {"a": [2]}]) == (1, {"a": (2,)})
    assert tree.map_shape_structure(len, {"a": (None, 3), "b": [(1,), (2, 3)]}) == {
        "a": 2,
        "b": [1, 2],
    }
    seen = []
    tree.traverse(lambda x: seen.append(x), [1, [2]])
    assert seen == [[1, [2]], 1, [2], 2]
    seen.clear()
    tree.traverse(lambda x: seen.append(x), [1, [2]], top_down=False)
    assert seen == [1, 2, [2], [1, [2]]]
    nest, seen = {"b": 1, "a": OrderedDict(d=2, c=3)}, []  # the latter as it is, others sorted
    tree.traverse(seen.append, nest)
    assert seen == [nest, nest["a"], 2, 3, 1] and tree.flatten(nest) == [2, 3, 1]
    assert tree.pack_sequence_as(nest, [4, 5, 6]) == {"b": 6, "a": OrderedDict(d=4, c=5)}
    assert list(tree.pack_sequence_as(nest, [4, 5, 6])) == ["b", "a"]
    assert tree.map_shape_structure(str, {"a": (2,), "b": "hi"}) == {"a": "(2,)", "b": "hi"}
    gone = tree.traverse(lambda x: tree.MAP_TO_NONE if x == 1 else None, [1, 2])
    assert gone == [None, 2]
    tree.assert_same_structure([1, (2,)], [3, (4,)])
    tree.assert_same_paths([1, (2,)], (3, [4]))
    for call in (
        lambda: tree.assert_same_structure([1], (1,)),
        lambda: tree.assert_same_paths({"a": 1}, {"b": 1}),
        lambda: tree.map_structure_up_to([0, [0]], len, [[1], 2]),
    ):
        with pytest.raises(ValueError):
            call()


def test_names_at_the_top():
    assert issubclass(keras.losses.MeanSquaredError, keras.Loss)
    assert issubclass(keras.metrics.Mean, keras.Metric)
    assert issubclass(keras.optimizers.Adam, keras.Optimizer)
    assert issubclass(keras.initializers.Zeros, keras.Initializer)
    assert issubclass(keras.regularizers.L2, keras.Regularizer)
    assert keras.version().startswith("3.")
    with keras.name_scope("a"), keras.device("cpu:0"):
        made = keras.Variable(1.0, name="b")
    assert (made.name, made.path) == ("b", "a/b")
    assert {"config", "tree", "dtype_policies"} <= set(dir(keras))


def test_draws():
    random, n = keras.random, 4000
    gamma = random.gamma((n,), 3.0, seed=1).numpy()
    np.testing.assert_array_equal(gamma, random.gamma((n,), 3.0, seed=1).numpy())
    assert gamma.mean() == pytest.approx(3, rel=0.05) and gamma.var() == pytest.approx(3, rel=0.1)
    beta = random.beta((n, 2), [2.0, 1.0], 2.0, seed=2).numpy()
    np.testing.assert_allclose(beta.mean(0), [0.5, 1 / 3], atol=0.02)
    hits = random.binomial((n,), 10, 0.3, seed=3).numpy()
    assert hits.dtype == np.float32 and hits.mean() == pytest.approx(3, rel=0.05)
    chosen = random.categorical([[0.0, np.log(3.0)]], n, seed=4).numpy()
    assert chosen.dtype == np.int32 and chosen.mean() == pytest.approx(0.75, abs=0.03)
    rows = np.arange(12).reshape(3, 4)
    mixed = random.shuffle(rows, axis=1, seed=5).numpy()
    assert sorted(mixed[0]) == [0, 1, 2, 3] and mixed.tolist() != rows.tolist()
    np.testing.assert_array_equal(mixed - mixed[0], np.arange(3)[:, None] * np.full(4, 4))
    seeds = random.SeedGenerator(1)
    first, second = (random.gamma((3,), 1.0, seed=seeds).numpy() for _ in range(2))
    assert not np.array_equal(first, second)

    @tf.function(jit_compile=True)
    def step():
        return random.gamma((3,), 1.0) + random.shuffle([1.0, 2.0, 3.0]) * 0

    assert not np.array_equal(step().numpy(), step().numpy())


def test_steps_that_ask_for_the_backend_take_the_way_of_tensorflow():
    assert keras.backend.backend() == keras.config.backend() == "tensorflow"


def test_flash_attention_is_asked_for_in_vain():
    keras.config.enable_flash_attention()
    assert keras.config.is_flash_attention_enabled() is False
    keras.config.disable_flash_attention()
