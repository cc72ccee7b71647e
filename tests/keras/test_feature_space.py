"""FeatureSpace: the columns of a table as the inputs of a model."""

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
FeatureSpace = keras.utils.FeatureSpace

AGES = np.array([20.0, 30.0, 40.0, 50.0], np.float32)
TABLE = {
    "age": AGES,
    "kind": np.array(["cat", "dog", "cat", "cat"]),
    "rooms": np.array([1, 2, 1, 3]),
}


def made(**more):
    features = {"age": "float_normalized", "kind": "string_categorical"}
    space = FeatureSpace({**features, "rooms": "integer_categorical"}, **more)
    space.adapt({name: column for name, column in TABLE.items()})
    return space


def test_the_columns_make_one_vector():
    found = made()(TABLE)
    assert found.shape == (4, 1 + 3 + 4)
    np.testing.assert_allclose(found[:, 0], (AGES - 35) / np.sqrt(125), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1:4], np.eye(3)[[1, 2, 1, 1]])  # the commonest first
    assert (found.numpy()[:, 4:].sum(1) == 1).all()


def test_of_one_row_and_in_a_dataset():
    space, table = made(), tf.data.Dataset.from_tensor_slices(TABLE)
    whole = space(TABLE)
    one = space({name: column[1] for name, column in TABLE.items()})
    np.testing.assert_array_equal(one, whole[1])
    np.testing.assert_array_equal(next(iter(table.batch(4).map(space))), whole)
    np.testing.assert_array_equal(next(iter(table.map(lambda row: space(row)))), whole[0])


def test_crosses_and_a_dict():
    space = made(output_mode="dict", crosses=[("kind", "rooms")], crossing_dim=5)
    found = space(TABLE)
    assert set(found) == {"age", "kind", "rooms", "kind_X_rooms"}
    crossed = found["kind_X_rooms"].numpy()
    assert crossed.shape == (4, 5) and (crossed.sum(1) == 1).all()
    np.testing.assert_array_equal(crossed[0], crossed[2])


def test_every_kind_by_its_function():
    space = FeatureSpace(
        {
            "a": FeatureSpace.float(),
            "b": FeatureSpace.float_rescaled(2.0, 1.0),
            "c": FeatureSpace.float_discretized(2),
            "d": FeatureSpace.integer_hashed(3, output_mode="int"),
            "e": FeatureSpace.string_hashed(4),
            "f": FeatureSpace.feature("float32", keras.layers.Normalization(-1, 1.0, 4.0), "float"),
        },
        crosses=[FeatureSpace.cross(("d", "e"), 6, output_mode="int")],
        output_mode="dict",
    )
    table = {**dict.fromkeys("abcf", AGES), "d": TABLE["rooms"], "e": TABLE["kind"]}
    space.adapt(tf.data.Dataset.from_tensor_slices(table))
    found = {name: value.numpy() for name, value in space(table).items()}
    np.testing.assert_array_equal(found["b"][:, 0], 2 * AGES + 1)
    np.testing.assert_array_equal(found["f"][:, 0], (AGES - 1) / 2)
    assert found["c"].shape == (4, 2) and found["e"].shape == (4, 4)
    assert found["d"].dtype == found["d_X_e"].dtype == np.int64


def test_a_model_of_numbers_takes_the_columns():
    space = FeatureSpace({"age": "float_normalized", "rooms": "integer_categorical"})
    table = {name: TABLE[name] for name in ("age", "rooms")}
    space.adapt(table)
    encoded = space.get_encoded_features()
    model = keras.Model(space.get_inputs(), encoded)
    columns = {name: column[:, None] for name, column in table.items()}
    np.testing.assert_allclose(model(columns), space(table), rtol=1e-6)


def test_a_model_behind_texts_takes_what_comes_of_them():
    """The model that is trained takes what comes of the columns, that for use the columns."""
    space = made(crosses=[("kind", "rooms")])
    inputs, encoded = space.get_inputs(), space.get_encoded_features()
    outputs = keras.layers.Dense(1)(encoded)
    behind, whole = keras.Model(encoded, outputs), keras.Model(inputs, outputs)
    expected = behind(space(TABLE))
    assert expected.shape == (4, 1)
    columns = {name: column[:, None] for name, column in TABLE.items()}
    np.testing.assert_allclose(whole.predict(columns, verbose=0), expected, rtol=1e-6)


def test_a_saved_space_gives_the_same(tmp_path):
    pytest.importorskip("h5py")
    space = made(crosses=[("kind", "rooms")])
    space.save(tmp_path / "space.keras")
    again = keras.models.load_model(tmp_path / "space.keras")
    np.testing.assert_array_equal(again(TABLE), space(TABLE))


def test_a_model_of_a_saved_space_with_two_features_of_a_kind(tmp_path):
    pytest.importorskip("h5py")
    kinds = {name: FeatureSpace.string_categorical(num_oov_indices=0) for name in ("one", "two")}
    space = FeatureSpace(kinds)
    names = [each.name for each in space.preprocessors.values()]
    assert len(set(names)) == 2 and all(name.endswith("_preprocessor") for name in names)
    table = {"one": np.array(["a", "b"]), "two": np.array(["c", "d"])}
    space.adapt(table)
    space.save(tmp_path / "space.keras")
    again = keras.saving.load_model(tmp_path / "space.keras")
    model = keras.Model(again.get_inputs(), again.get_encoded_features())
    np.testing.assert_array_equal(model.predict(table, verbose=0), space(table))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: FeatureSpace({}), "cannot be None or empty"),
        (lambda: FeatureSpace({"a": "text"}), "Invalid feature type"),
        (lambda: FeatureSpace({"a": "float"}, output_mode="list"), "output_mode"),
        (lambda: FeatureSpace({"a": "float"}, crosses=[("a", "b")]), "unknown features"),
        (lambda: FeatureSpace({"a": "float_normalized"})({"a": AGES}), "adapt"),
        (lambda: FeatureSpace({"a": "float"})(AGES), "with a dict"),
        (lambda: FeatureSpace({"a": "float_normalized"}).adapt(AGES), "Dataset or a dict"),
        (lambda: FeatureSpace({"a": FeatureSpace.integer_hashed(3, "int")})({"a": [1]}), "dict'"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
