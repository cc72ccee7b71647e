"""Ragged elements of datasets, and ragged features of examples: what TensorFlow gives."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

Dataset = tf.data.Dataset
RT = tf.ragged.constant([[1.0, 2.0], [3.0], [], [4.0, 5.0, 6.0]])
R3 = tf.ragged.constant([[[1], [2, 3]], [[4]]])
COUNTS = Dataset.range(4).map(tf.range)


def listed(data):
    return [
        each.to_list() if isinstance(each, tf.RaggedTensor) else each.numpy().tolist()
        for each in data
    ]


ROWS = Dataset.from_tensor_slices(RT)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (ROWS, [[1.0, 2.0], [3.0], [], [4.0, 5.0, 6.0]]),
        (Dataset.from_tensors(RT[:2]), [[[1.0, 2.0], [3.0]]]),
        (ROWS.batch(3), [[[1.0, 2.0], [3.0], []], [[4.0, 5.0, 6.0]]]),
        (ROWS.batch(3, drop_remainder=True), [[[1.0, 2.0], [3.0], []]]),
        (ROWS.batch(3).unbatch(), RT.to_list()),
        (ROWS.skip(1).take(1).repeat(2).batch(2).cache().prefetch(1), [[[3.0], [3.0]]]),
        (ROWS.batch(2).map(lambda r: tf.reduce_sum(r, 1)), [[3.0, 3.0], [0.0, 15.0]]),
        (ROWS.map(lambda r: r * 2).ragged_batch(4), [(RT * 2.0).to_list()]),
        (ROWS.batch(2).filter(lambda r: tf.reduce_sum(r) > 6.0), [[[], [4.0, 5.0, 6.0]]]),
        (Dataset.from_tensor_slices(R3), R3.to_list()),
        (Dataset.from_tensor_slices(R3).batch(2), [R3.to_list()]),
        (COUNTS.ragged_batch(2), [[[], [0]], [[0, 1], [0, 1, 2]]]),
        (COUNTS.ragged_batch(3, True), [[[], [0], [0, 1]]]),
        (
            COUNTS.apply(tf.data.experimental.dense_to_ragged_batch(4)),
            [[[], [0], [0, 1], [0, 1, 2]]],
        ),
        (Dataset.from_tensor_slices([[1, 2], [3, 4]]).ragged_batch(2), [[[1, 2], [3, 4]]]),
        (
            Dataset.from_tensor_slices(["a b", "c"]).map(tf.strings.split).ragged_batch(2),
            [[[b"a", b"b"], [b"c"]]],
        ),
        (
            Dataset.from_tensor_slices(["a b c"]).map(lambda t: tf.strings.split([t, "d"])),
            [[[b"a", b"b", b"c"], [b"d"]]],
        ),
    ],
)
def test_elements(data, wanted):
    assert listed(data) == wanted


def test_what_is_known_of_elements():
    spec = tf.RaggedTensorSpec
    assert ROWS.element_spec == spec([None], tf.float32, 0)
    assert ROWS.batch(3).element_spec == spec([None, None], tf.float32, 1)
    assert Dataset.from_tensors(R3).element_spec == spec([2, None, None], tf.int32, 2)
    assert COUNTS.ragged_batch(2).element_spec == spec([None, None], tf.int64, 1)
    assert COUNTS.ragged_batch(2, True, tf.int32).element_spec == spec(
        [2, None], tf.int64, 1, tf.int32
    )
    assert len(ROWS) == 4 and len(ROWS.batch(3)) == 2


def test_beside_other_parts():
    data = Dataset.from_tensor_slices({"a": RT, "b": [1, 2, 3, 4]})
    first = next(iter(data.shuffle(4, seed=1).batch(4)))
    lengths = dict(zip(first["b"].numpy(), first["a"].row_lengths().numpy(), strict=True))
    assert lengths == {1: 2, 2: 1, 3: 0, 4: 3}
    pairs = list(Dataset.zip(ROWS, Dataset.range(4)).batch(2).as_numpy_iterator())
    assert pairs[0][0][0].tolist() == [1.0, 2.0] and pairs[1][1].tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"parts have \[4, 3\] rows"):
        Dataset.from_tensor_slices((RT, [1, 2, 3]))
    with pytest.raises(TypeError, match="Padded batching of ragged or sparse tensors: make them"):
        list(ROWS.padded_batch(2))


def test_generators_may_give_ragged_tensors():
    signature = tf.RaggedTensorSpec([None, None], tf.float32)
    data = Dataset.from_generator(lambda: iter([RT, R3]), output_signature=signature)
    elements = iter(data)
    assert next(elements).to_list() == RT.to_list()
    with pytest.raises(tf.errors.InvalidArgumentError, match="Ragged.* was announced"):
        next(elements)


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


EXAMPLES = [
    example(
        a=ints(1, 2),
        lengths=ints(1, 1),
        splits=ints(0, 2),
        ids=ints(0, 1),
        text=tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"])),
    ),
    example(a=ints(3, 4, 5), lengths=ints(2, 1), splits=ints(0, 0, 3), ids=ints(0, 0, 1)),
]
F = tf.io.RaggedFeature


@pytest.mark.parametrize(
    ("feature", "wanted"),
    [
        (F(tf.int64, "a"), [[1, 2], [3, 4, 5]]),
        (F(tf.int64, "missing"), [[], []]),
        (F(tf.string, "text"), [[b"x"], []]),
        (F(tf.int64, "a", [F.RowLengths("lengths")]), [[[1], [2]], [[3, 4], [5]]]),
        (F(tf.int64, "a", [F.RowSplits("splits")]), [[[1, 2]], [[], [3, 4, 5]]]),
        (F(tf.int64, "a", [F.ValueRowIds("ids")]), [[[1], [2]], [[3, 4], [5]]]),
        (F(tf.int64, "a", [F.UniformRowLength(1)]), [[[1], [2]], [[3], [4], [5]]]),
    ],
)
def test_ragged_features(feature, wanted):
    parsed = tf.io.parse_example(EXAMPLES, {"z": feature})["z"]
    assert parsed.to_list() == wanted and parsed.row_splits.dtype == tf.int32
    single = tf.io.parse_single_example(EXAMPLES[1], {"z": feature})["z"]
    assert listed([single]) == wanted[1:]
    data = Dataset.from_tensor_slices(EXAMPLES).batch(2)
    assert listed(data.map(lambda b: tf.io.parse_example(b, {"z": feature})["z"])) == [wanted]


def test_ragged_features_of_sequences():
    lists = {"q": tf.train.FeatureList(feature=[ints(1, 2), ints(3)])}
    data = tf.train.SequenceExample(
        feature_lists=tf.train.FeatureLists(feature_list=lists)
    ).SerializeToString()
    features = {"q": F(tf.int64)}
    _, one = tf.io.parse_single_sequence_example(data, sequence_features=features)
    assert one["q"].to_list() == [[1, 2], [3]]
    _, both, lengths = tf.io.parse_sequence_example([data] * 2, sequence_features=features)
    assert both["q"].to_list() == [[[1, 2], [3]]] * 2 and lengths == {}


def test_wrong_ragged_features():
    with pytest.raises(tf.errors.InvalidArgumentError, match="Data types don't match"):
        tf.io.parse_example(EXAMPLES, {"a": F(tf.float32)})
    wrong = F(tf.int64, "a", [F.RowLengths("ids")])
    with pytest.raises(tf.errors.InvalidArgumentError, match="row_splits of 2 values"):
        tf.io.parse_example(EXAMPLES, {"a": wrong})
    assert repr(F(tf.int64, "a", [F.RowLengths("l")])) == (
        "RaggedFeature(dtype=tf.int64, value_key='a', partitions=(RowLengths(key='l'),), "
        "row_splits_dtype=tf.int32, validate=False)"
    )
    assert np.shape(EXAMPLES) == (2,)
