"""Examples with any number of values: sparse until they are made dense, as in TensorFlow 2.21."""

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

pytest.importorskip("google.protobuf")

Feature = tf.train.Feature
LENGTHS = [[1, 2, 3], [], [5]]


def examples() -> list[bytes]:
    made = []
    for numbers in LENGTHS:
        feature = {
            "a": Feature(int64_list=tf.train.Int64List(value=numbers)),
            "t": Feature(bytes_list=tf.train.BytesList(value=[b"x\0"] * len(numbers))),
        }
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        made.append(example.SerializeToString())
    return made


SPEC = {
    "a": tf.io.VarLenFeature(tf.int64),
    "t": tf.io.VarLenFeature(tf.string),
    "m": tf.io.VarLenFeature(tf.float32),  # which none has
}


def parts(sparse: tf.SparseTensor) -> tuple:
    places, shape = sparse.indices.numpy().tolist(), sparse.dense_shape.numpy().tolist()
    return places, sparse.values.numpy().tolist(), shape


def test_one_example_and_a_batch_of_them():
    one = tf.io.parse_single_example(examples()[0], SPEC)
    assert parts(one["a"]) == ([[0], [1], [2]], [1, 2, 3], [3])
    assert parts(one["t"]) == ([[0], [1], [2]], [b"x\0"] * 3, [3])
    assert parts(one["m"]) == ([], [], [0])
    assert [one[k].dtype for k in "atm"] == [tf.int64, tf.string, tf.float32]
    batch = tf.io.parse_example(examples(), SPEC)
    assert parts(batch["a"]) == ([[0, 0], [0, 1], [0, 2], [2, 0]], [1, 2, 3, 5], [3, 3])
    assert batch["m"].shape == batch["m"].get_shape() == tf.TensorShape([3, 0])
    dense = tf.sparse.to_dense(batch["a"])
    assert dense.dtype == tf.int64 and dense.numpy().tolist() == [[1, 2, 3], [0, 0, 0], [5, 0, 0]]
    filled = tf.sparse.to_dense(batch["a"], default_value=-1)
    assert filled.numpy().tolist() == [[1, 2, 3], [-1, -1, -1], [5, -1, -1]]
    texts = tf.sparse.to_dense(batch["t"], default_value="none")
    assert texts.numpy().tolist() == [[b"x\0"] * 3, [b"none"] * 3, [b"x\0", b"none", b"none"]]
    assert tf.sparse.to_dense(batch["m"]).shape == (3, 0)


def test_times_a_number():
    sparse = tf.SparseTensor([[0, 0], [1, 2]], [1.0, 2.0], [3, 4])
    assert (sparse * 42.0).values.numpy().tolist() == [42, 84]
    half = sparse / tf.constant(2.0)
    assert (half.values.numpy().tolist(), half.shape) == ([0.5, 1], (3, 4))


def test_times_a_dense_tensor():  # values are TensorFlow's
    column, row = tf.Variable([[2.0], [3.0]]), np.array([5.0, 7.0, 11.0], np.float32)
    with tf.GradientTape() as tape:
        product = matrix() * column
        loss = tf.reduce_sum(product.values**2)
    assert parts(product)[::2] == parts(matrix())[::2]
    assert product.values.numpy().tolist() == [26, 45, 51]
    assert tape.gradient(loss, column).numpy().tolist() == [[676], [3084]]
    for made in (matrix() * row, row * matrix(), tf.constant(row) * matrix()):
        assert made.values.numpy().tolist() == [91, 75, 187]
    np.testing.assert_allclose((matrix() / np.full((2, 3), 2.0)).values, [6.5, 7.5, 8.5])
    values, dense = np.array([13.0, 15.0, 17.0]), np.arange(6.0).reshape(2, 3) + 1
    check_gradients(lambda v, d: (matrix(v) / d).values, [values, dense])
    with pytest.raises(tf.errors.InvalidArgumentError, match="not broadcast"):
        matrix() * np.ones((3, 2))


def test_in_a_dataset():
    dataset = tf.data.Dataset.from_tensor_slices(examples())
    numbers = dataset.map(lambda e: tf.sparse.to_dense(tf.io.parse_single_example(e, SPEC)["a"]))
    assert numbers.element_spec == tf.TensorSpec([None], tf.int64)
    assert [each.numpy().tolist() for each in numbers] == LENGTHS
    values = dataset.map(lambda e: tf.io.parse_single_example(e, SPEC)["a"].values)
    assert values.element_spec == tf.TensorSpec([None], tf.int64)
    (batch,) = dataset.batch(3).map(lambda e: tf.sparse.to_dense(tf.io.parse_example(e, SPEC)["a"]))
    assert batch.numpy().tolist() == [[1, 2, 3], [0, 0, 0], [5, 0, 0]]


def counted(n):
    return tf.sparse.from_dense(tf.range(1, n + 1))


UNKNOWN = tf.SparseTensorSpec([None], tf.int64)


def test_elements():
    dataset = tf.data.Dataset.from_tensor_slices(examples())
    parsed = dataset.map(lambda e: tf.io.parse_single_example(e, SPEC))
    assert parsed.element_spec["t"] == tf.SparseTensorSpec([None], tf.string)
    assert [parts(each["a"])[1] for each in parsed.cache().prefetch(1)] == LENGTHS
    (batch,) = parsed.batch(3)
    whole = tf.io.parse_example(examples(), SPEC)
    assert [parts(batch[k]) for k in "atm"] == [parts(whole[k]) for k in "atm"]
    dense = parsed.map(lambda e: tf.sparse.to_dense(e["a"], default_value=-1))
    assert dense.element_spec == tf.TensorSpec([None], tf.int64)
    (filled,) = dense.padded_batch(3)
    assert filled.numpy().tolist() == [[1, 2, 3], [0, 0, 0], [5, 0, 0]]
    with pytest.raises(TypeError, match="tf.sparse.to_dense"):
        tf.add(next(iter(parsed))["a"], 1)


def test_batches_of_elements_and_back():
    dataset = tf.data.Dataset.range(1, 4).map(counted)
    assert dataset.element_spec == UNKNOWN
    first, last = batches = dataset.batch(2)
    assert batches.element_spec == tf.SparseTensorSpec([None, None], tf.int64)
    assert parts(first) == ([[0, 0], [1, 0], [1, 1]], [1, 1, 2], [2, 2])
    assert parts(last) == ([[0, 0], [0, 1], [0, 2]], [1, 2, 3], [1, 3])
    back = batches.unbatch()
    assert back.element_spec == UNKNOWN
    assert parts(next(iter(back))) == ([[0]], [1], [2])
    with pytest.raises(TypeError, match="sparse tensors"):
        list(dataset.padded_batch(2))
    same = zip(dataset.as_numpy_iterator(), dataset.ragged_batch(1).unbatch(), strict=True)
    assert all(parts(one) == parts(other) for one, other in same)


def test_rows_of_a_sparse_tensor():
    sparse = tf.SparseTensor([[0, 1], [2, 0]], [1.0, 2.0], [3, 4])
    dataset = tf.data.Dataset.from_tensor_slices((sparse, [1, 2, 3]))
    rows = [(parts(row), int(label)) for row, label in dataset]
    assert rows == [(([[1]], [1], [4]), 1), (([], [], [4]), 2), (([[0]], [2], [4]), 3)]
    assert parts(next(iter(tf.data.Dataset.from_tensors(sparse)))) == parts(sparse)
    with pytest.raises(ValueError, match="rows"):
        tf.data.Dataset.from_tensor_slices((sparse, [1, 2]))


def test_elements_of_a_generator():
    spec = tf.SparseTensorSpec([None], tf.int64)
    generate = lambda: map(counted, np.arange(1, 3))  # noqa: E731
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
    assert [parts(each)[1] for each in dataset] == [[1], [1, 2]]
    wrong = tf.data.Dataset.from_generator(
        generate, output_signature=tf.SparseTensorSpec([2], tf.float32)
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="was announced"):
        list(wrong)


def test_what_is_known_of_one():
    sparse = tf.SparseTensor([[0, 1], [2, 0]], [1.0, 2.0], [3, 4])
    spec = tf.type_spec_from_value(sparse)
    assert tf.is_tensor(sparse)
    assert repr(spec) == "SparseTensorSpec(TensorShape([3, 4]), tf.float32)"
    wide = tf.SparseTensorSpec([None, 4], tf.float32)
    assert wide.is_compatible_with(sparse) and wide.is_compatible_with(spec)
    assert wide != spec and len({spec, tf.SparseTensorSpec.from_value(sparse)}) == 1
    assert not wide.is_compatible_with(tf.zeros([3, 4]))


def test_dense_and_back_with_gradients():
    sparse = tf.sparse.from_dense([[0.0, 1.0], [2.0, 0.0]])
    assert parts(sparse) == ([[0, 1], [1, 0]], [1.0, 2.0], [2, 2])
    assert tf.sparse.to_dense(sparse).numpy().tolist() == [[0, 1], [2, 0]]
    assert parts(tf.sparse.from_dense(np.array(["", "a"]))) == ([[1]], [b"a"], [2])
    with tf.GradientTape() as tape:
        values = tf.constant([1.0, 2.0])
        tape.watch(values)
        dense = tf.sparse.to_dense(tf.SparseTensor([[0], [2]], values, [4]))
        y = tf.reduce_sum(dense * [1.0, 2.0, 3.0, 4.0])
    assert tape.gradient(y, values).numpy().tolist() == [1, 3]


@pytest.mark.parametrize(
    ("indices", "validate", "message"),
    [
        ([[1], [0]], True, r"indices\[1\] = \[0\] is out of order"),
        ([[1], [1]], True, r"indices\[1\] = \[1\] is repeated"),
        ([[0], [5]], True, r"indices\[1\] = \[5\] is out of bounds: need 0 <= index < \[3\]"),
        ([[0], [5]], False, r"indices\[1\] = \[5\] is out of bounds"),
    ],
)
def test_indices_are_looked_at(indices, validate, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.sparse.to_dense(tf.SparseTensor(indices, [1, 2], [3]), validate_indices=validate)


def test_what_does_not_fit_is_refused():
    loose = tf.SparseTensor([[1], [0]], [1, 2], [3])
    assert tf.sparse.to_dense(loose, validate_indices=False).numpy().tolist() == [2, 1, 0]
    for indices, values, shape in (
        ([[1, 0]], [1], [3]),
        ([1], [1], [3]),
        ([[1]], [1, 2], [3]),
    ):
        with pytest.raises(ValueError, match="have shapes"):
            tf.SparseTensor(indices, values, shape)
    with pytest.raises(TypeError, match="must be a SparseTensor"):
        tf.sparse.to_dense([1])
    with pytest.raises(TypeError, match="make a tensor of it by tf.sparse.to_dense"):
        tf.constant(1) + loose


def test_cast_changes_values():
    cast = tf.cast(tf.sparse.from_dense([[1.0, 0.0, 2.5]]), tf.int64)
    assert parts(cast) == ([[0, 0], [0, 2]], [1, 2], [1, 3]) and cast.dtype == tf.int64
    assert parts(tf.keras.ops.cast(cast, "float32")) == ([[0, 0], [0, 2]], [1.0, 2.0], [1, 3])


def test_edit_distance():
    """TensorFlow's own example, and numbers."""
    one = tf.SparseTensor([[0, 0, 0], [1, 0, 0]], ["a", "b"], [2, 1, 1])
    places = [[0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]
    truth = tf.SparseTensor(places, ["a", "b", "c", "a"], [2, 2, 2])
    found = tf.edit_distance(one, truth)
    assert found.dtype == tf.float32 and found.numpy().tolist() == [[np.inf, 1.0], [0.5, 1.0]]
    read, sought = (
        tf.sparse.from_dense([[1, 2, 3], [4, 0, 0]]),
        tf.sparse.from_dense([[2, 4], [4, 0]]),
    )
    assert tf.edit_distance(read, sought, normalize=False).numpy().tolist() == [2.0, 0.0]
    with pytest.raises(TypeError, match="from_dense"):
        tf.edit_distance([[1]], truth)
    with pytest.raises(ValueError, match="rank"):
        tf.edit_distance(read, truth)


def matrix(values=(13.0, 15.0, 17.0)) -> tf.SparseTensor:
    return tf.SparseTensor([[0, 1], [1, 0], [1, 2]], values, (2, 3))


def test_sums_are_sparse_or_dense():  # values are TensorFlow's
    one = tf.SparseTensor([[0, 2], [3, 4]], [31.0, 2.0], [4, 10])
    other = tf.SparseTensor([[0, 2], [3, 0]], [-31.0, 38.0], [4, 10])
    assert parts(tf.sparse.add(one, other)) == ([[0, 2], [3, 0], [3, 4]], [0, 38, 2], [4, 10])
    assert parts(tf.sparse.add(one, other, 1.0)) == ([[3, 0], [3, 4]], [38, 2], [4, 10])
    assert tf.sparse.add(tf.ones((4, 10)), one).numpy().sum() == 73
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ"):
        tf.sparse.add(one, matrix())
    with pytest.raises(TypeError, match="must be a SparseTensor"):
        tf.sparse.add(1.0, 2.0)
    assert tf.sparse.reduce_sum(matrix(), 1).numpy().tolist() == [13, 32]
    assert tf.sparse.reduce_sum(matrix(), 0, keepdims=True).numpy().tolist() == [[15, 13, 17]]


def test_products_have_gradients():
    values, dense = (
        tf.Variable([13.0, 15.0, 17.0]),
        tf.Variable([[4.0, 1.0], [6.0, 2.0], [3.0, 5.0]]),
    )
    with tf.GradientTape() as tape:
        product = tf.sparse.sparse_dense_matmul(matrix(values), dense)
        loss = tf.reduce_sum(product**2)
    assert product.numpy().tolist() == [[78, 26], [111, 100]]
    of_values, of_dense = tape.gradient(loss, [values, dense])
    assert of_values.numpy().tolist() == [1040, 1088, 1666]
    assert of_dense.numpy().tolist() == [[3330, 3000], [2028, 676], [3774, 3400]]
    turned = tf.sparse.sparse_dense_matmul(matrix(), dense[:2], adjoint_a=True)
    assert turned.numpy().tolist() == [[90, 30], [52, 13], [102, 34]]
    turned = tf.sparse.sparse_dense_matmul(matrix(), tf.transpose(dense), adjoint_b=True)
    assert turned.numpy().tolist() == product.numpy().tolist()
    with pytest.raises(tf.errors.InvalidArgumentError, match="no product"):
        tf.sparse.sparse_dense_matmul(matrix(), dense[:2])


def test_places_are_moved():
    beside = [[0, 1], [0, 4], [1, 0], [1, 2], [1, 3], [1, 5]]
    assert parts(tf.sparse.concat(1, [matrix()] * 2)) == (beside, [13, 13, 15, 17, 15, 17], [2, 6])
    assert parts(tf.sparse.slice(matrix(), [1, 0], [5, 2])) == ([[0, 0]], [15], [1, 2])
    assert parts(tf.sparse.retain(matrix(), [True, False, False])) == ([[0, 1]], [13], [2, 3])
    turned = ([[0, 1], [1, 0], [2, 1]], [15, 13, 17], [3, 2])
    assert parts(tf.sparse.transpose(matrix())) == turned
    flat = ([[0, 1], [1, 1], [2, 1]], [13, 15, 17], [3, 2])
    assert parts(tf.sparse.reshape(matrix(), [3, -1])) == flat
    deep = ([[0, 1, 0], [1, 0, 0], [1, 2, 0]], [13, 15, 17], [2, 3, 1])
    assert parts(tf.sparse.expand_dims(matrix())) == deep
    mixed = tf.SparseTensor([[1, 0], [0, 1]], ["a", "b"], [2, 2])
    assert parts(tf.sparse.reorder(mixed)) == ([[0, 1], [1, 0]], [b"b", b"a"], [2, 2])
    more = tf.sparse.map_values(tf.add, matrix(), 5.0)
    assert parts(more) == ([[0, 1], [1, 0], [1, 2]], [18, 20, 22], [2, 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="other places"):
        tf.sparse.map_values(tf.add, matrix(), mixed)
    with pytest.raises(tf.errors.InvalidArgumentError, match="reshape"):
        tf.sparse.reshape(matrix(), [4, 4])
    with pytest.raises(AttributeError, match="to_dense makes dense tensors"):
        tf.sparse.expm1(matrix())


def test_the_softmax_of_what_is_there():  # values are TensorFlow's
    values = np.array([1.0, 2.0, -1.0])
    made = tf.sparse.softmax(matrix(values))
    np.testing.assert_allclose(made.values, [1.0, 0.9525741268, 0.0474258732], rtol=1e-9)
    assert parts(made)[::2] == parts(matrix())[::2]
    check_gradients(lambda v: tf.sparse.softmax(matrix(v)).values, [values])
    with pytest.raises(tf.errors.InvalidArgumentError, match="two axes"):
        tf.sparse.softmax(tf.SparseTensor([[0]], [1.0], [2]))


def test_the_largest_of_what_is_there():  # values are TensorFlow's
    negative = matrix((-13.0, -15.0, -17.0))
    for axis, expected in ((0, [-15, -13, -17]), (1, [-13, -15]), (None, -13), ([0, 1], -13)):
        assert tf.sparse.reduce_max(negative, axis).numpy().tolist() == expected
    empty = tf.SparseTensor([[0, 1]], [-2.0], (2, 2))
    assert tf.sparse.reduce_max(empty, -1, keepdims=True).numpy().tolist() == [[-2], [0]]


def test_the_identity():
    assert parts(tf.sparse.eye(2, 3)) == ([[0, 0], [1, 1]], [1, 1], [2, 3])
    assert tf.sparse.eye(1, dtype=tf.int32).dtype == tf.int32


@pytest.mark.parametrize(
    ("combiner", "weights", "expected"),  # TensorFlow's
    [
        (None, None, [[4.0, 5.0], [2.0, 3.0]]),
        ("sum", None, [[8.0, 10.0], [2.0, 3.0]]),
        ("sqrtn", None, [[5.656854, 7.071068], [2.0, 3.0]]),
        ("mean", [1.0, 3.0, 2.0], [[5.0, 6.0], [2.0, 3.0]]),
        ("sqrtn", [1.0, 3.0, 2.0], [[6.324555, 7.589466], [2.0, 3.0]]),
    ],
)
def test_rows_of_a_table_added_up(combiner, weights, expected):
    table = tf.Variable([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    places = [[0, 0], [0, 1], [1, 0]]
    ids = tf.SparseTensor(places, tf.constant([1, 3, 1], tf.int64), [2, 2])
    given = None if weights is None else tf.SparseTensor(places, weights, [2, 2])
    made = tf.nn.embedding_lookup_sparse(table, ids, given, combiner)
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_what_is_added_up_has_a_gradient():
    ids = tf.SparseTensor([[0, 0], [0, 1]], tf.constant([1, 1], tf.int64), [1, 2])
    table, weights = np.arange(6.0).reshape(3, 2) + 1, np.array([1.0, 3.0])

    def looked_up(table, weights):
        return tf.nn.embedding_lookup_sparse(table, ids, ids.with_values(weights), "sqrtn")

    check_gradients(looked_up, [table, weights])
    with pytest.raises(ValueError, match="combiner must be one of"):
        tf.nn.embedding_lookup_sparse(table, ids, None, "max")
    with pytest.raises(TypeError, match="SparseTensor"):
        tf.nn.embedding_lookup_sparse(table, [[1]], None)


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"]])
def test_serialized(values):
    sparse = tf.SparseTensor([[0, 1], [2, 0]], values, [3, 4])
    texts = tf.io.serialize_sparse(sparse)
    # As TensorFlow 2.21 writes it.
    shape = "0809120412020802221003000000000000000400000000000000"
    assert texts.shape == (3,) and texts.numpy()[2].hex() == shape
    batch = tf.io.deserialize_many_sparse(np.stack([texts, texts]), sparse.dtype, rank=2)
    places, _, size = parts(batch)
    assert places == [[0, 0, 1], [0, 2, 0], [1, 0, 1], [1, 2, 0]] and size == [2, 3, 4]
    assert parts(batch)[1] == parts(sparse)[1] * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="rank 2, not 1"):
        tf.io.deserialize_many_sparse(np.stack([texts]), sparse.dtype, rank=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Type mismatch"):
        tf.io.deserialize_many_sparse(np.stack([texts]), tf.int32)


def test_sequences():
    """As TensorFlow 2.21 reads them."""

    def message(sequences):
        def steps(rows):
            made = [tf.train.Feature(int64_list=tf.train.Int64List(value=row)) for row in rows]
            return tf.train.FeatureList(feature=made)

        lists = {key: steps(rows) for key, rows in sequences.items()}
        lists = tf.train.FeatureLists(feature_list=lists)
        return tf.train.SequenceExample(feature_lists=lists).SerializeToString()

    spec = {"s": tf.io.VarLenFeature(tf.int64)}
    one, other = message({"s": [[1, 2], [], [3]]}), message({"s": [[4, 5, 6]]})
    _, single = tf.io.parse_single_sequence_example(one, sequence_features=spec)
    assert parts(single["s"]) == ([[0, 0], [0, 1], [2, 0]], [1, 2, 3], [3, 2])
    rows = tf.RaggedTensor.from_sparse(single["s"])
    assert rows.to_list() == [[1, 2], [], [3]]
    _, both, lengths = tf.io.parse_sequence_example([one, other], sequence_features=spec)
    places = [[0, 0, 0], [0, 0, 1], [0, 2, 0], [1, 0, 0], [1, 0, 1], [1, 0, 2]]
    assert parts(both["s"]) == (places, [1, 2, 3, 4, 5, 6], [2, 3, 3])
    assert lengths == {}
    _, none = tf.io.parse_single_sequence_example(message({}), sequence_features=spec)
    assert parts(none["s"]) == ([], [], [0, 0])
