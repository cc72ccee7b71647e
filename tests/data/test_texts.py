"""Texts in datasets: arrays of str that say what TensorFlow's tensors of texts say."""

import numpy as np
import pytest

import distgrad as tf
from distgrad.data import Dataset

LINES = ["é,1", "b,2", "#,3"]


def lines():
    return Dataset.from_tensor_slices(LINES)


def test_element_spec_says_string():
    text, number = tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32)
    assert lines().element_spec == text
    assert lines().batch(2).element_spec == tf.TensorSpec([None], tf.string)
    assert lines().map(tf.strings.length).element_spec == number
    pairs = Dataset.from_tensor_slices({"t": LINES, "n": [1, 2, 3]})
    made = pairs.map(lambda row: (tf.strings.upper(row["t"]), row["n"]))
    assert made.element_spec == (text, number)


def test_they_have_numpy_as_the_numbers_beside_them():
    assert [line.numpy() for line in lines()] == ["é,1".encode(), b"b,2", b"#,3"]
    (batch,) = lines().batch(3)
    assert batch.numpy()[1] == batch[1].numpy() == b"b,2"
    assert [text.numpy().decode() for text in batch] == LINES
    assert batch.dtype == tf.string and tf.string == batch.dtype
    assert {batch[0]: 1}[LINES[0]] == 1  # one of them is a str, too


@pytest.mark.parametrize(
    "said",
    [
        {"output_signature": (tf.TensorSpec((), tf.string), tf.TensorSpec([None], tf.int64))},
        {"output_types": (tf.string, tf.int64), "output_shapes": ((), (None,))},
    ],
)
def test_generators_give_them(said):
    made = Dataset.from_generator(lambda: iter([("é", [1]), ("é".encode(), [1, 2])]), **said)
    assert made.element_spec == (tf.TensorSpec((), tf.string), tf.TensorSpec([None], tf.int64))
    assert [str(text) for text, _ in made] == ["é", "é"]
    wrong = Dataset.from_generator(lambda: iter([(1, [1])]), **said)
    with pytest.raises(tf.errors.InvalidArgumentError, match="texts"):
        list(wrong)


def test_equal_and_not_equal_compare_them():
    kept = lines().filter(lambda line: tf.not_equal(tf.strings.substr(line, 0, 1), "#"))
    assert [str(line) for line in kept] == LINES[:2]
    found = tf.equal(np.array(["a", "b"]), b"b")
    assert found.dtype == tf.bool and found.numpy().tolist() == [False, True]


def test_bytes_are_equal_to_their_texts():  # as listings compare what they print
    texts = tf.constant(["a", "é"])
    assert (texts == "é".encode()).tolist() == (texts != b"a").tolist() == [False, True]
    assert (texts == np.array([b"a", b"b"], object)).tolist() == [True, False]
    assert texts[0] == b"a" and b"a" == texts[0] == "a" and texts[0] != b"b"
    assert texts[0] != b"\xff" and not (texts == b"\xff").any()


def test_zeros_of_texts_are_empty():
    none = tf.zeros([0, 1], tf.string)
    assert tf.concat([none, [["a"]]], axis=0).numpy().tolist() == [[b"a"]]
    assert tf.zeros([2], dtype=tf.string).numpy().tolist() == [b"", b""]


def test_lists_of_them_have_a_shape():
    assert tf.shape([["a"], ["bc"]]).numpy().tolist() == [2, 1]
    assert int(tf.size(["a", "b"])) == 2 and int(tf.rank("a")) == 0


def test_python_functions_get_and_give_them():
    sizes = lines().map(lambda line: tf.numpy_function(len, [line], tf.int64))
    assert [int(size) for size in sizes] == [4, 3, 3]  # bytes
    made = lines().map(lambda line: tf.py_function(lambda x: x.numpy() + b"!", [line], tf.string))
    assert [str(line) for line in made] == [f"{line}!" for line in LINES]


def test_a_state_may_grow():
    assert str(lines().reduce("", lambda state, line: state + line)) == "".join(LINES)


def test_a_signature_may_name_them():
    spec = tf.TensorSpec([None], tf.string)
    assert spec.is_compatible_with(np.array(LINES)) and not spec.is_compatible_with(LINES[0])
    length = tf.function(tf.strings.length, input_signature=[spec])
    assert length(np.array(LINES)).numpy().tolist() == [4, 3, 3]
    with pytest.raises(TypeError):
        length([1.0])


def test_padded_batches_are_filled_up_by_empty_texts():
    words = Dataset.from_tensor_slices(["a b", "long"]).map(tf.strings.split)
    (batch,) = words.padded_batch(2)
    assert batch.tolist() == [["a", "b"], ["long", ""]]
    (batch,) = words.padded_batch(2, padding_values="<pad>")
    assert batch.tolist() == [["a", "b"], ["long", "<pad>"]]


def test_one_text_gets_an_axis():
    text = next(iter(lines().batch(2)))[1]
    found = tf.expand_dims(text, -1)
    assert found.shape == (1,) and found.numpy().tolist() == [b"b,2"]
    assert tf.expand_dims("a", 0)[0].numpy() == b"a"


BINARY = [b"a\0", b"\xff", b"c"]


@pytest.mark.parametrize(
    "data",
    [
        Dataset.from_tensor_slices(BINARY),
        Dataset.from_tensor_slices({"t": BINARY}).map(lambda row: row["t"]),
        Dataset.from_generator(lambda: iter(BINARY), output_types=tf.string),
        Dataset.range(3).map(lambda n: tf.py_function(lambda i: BINARY[i], [n], tf.string)),
    ],
    ids=["array", "dict", "generator", "py_function"],
)
def test_bytes_that_are_no_texts_stay_as_they_are(data, tmp_path):
    assert [each.numpy() for each in data] == BINARY
    (batch,) = data.batch(3)
    assert batch.numpy().tolist() == BINARY and tf.string == batch.dtype
    assert [each.numpy() for each in data.batch(2).unbatch()] == BINARY
    (padded,) = data.padded_batch(3)
    assert padded.numpy().tolist() == BINARY
    if data.element_spec == tf.TensorSpec((), tf.string):
        data.save(tmp_path)
        assert [each.numpy() for each in Dataset.load(tmp_path)] == BINARY


def test_bytes_are_compared_and_reshaped():
    (batch,) = Dataset.from_tensor_slices(BINARY).batch(3)
    assert (batch == b"c").tolist() == (batch == "c").tolist() == [False, False, True]
    assert (batch != BINARY).tolist() == [False] * 3 and tf.equal(batch, b"c").numpy()[2]
    binary = Dataset.from_tensor_slices(np.array([b"\xff", b"c"]))
    assert [bool(tf.equal(each, b"\xff")) for each in binary] == [True, False]
    assert [each.numpy() for each in batch] == BINARY and batch[1].numpy() == b"\xff"
    assert tf.reshape(batch, [3, 1]).shape == tf.expand_dims(batch, 1).shape == (3, 1)
    assert (str(batch[2]), repr(batch[2])) == ("b'c'", "array(b'c', dtype=object)")


def test_shorter_rows_of_bytes_are_filled_up():
    rows = Dataset.from_generator(lambda: iter([[b"\xff"], [b"a\0", b"b"]]), output_types=tf.string)
    (batch,) = rows.padded_batch(2)
    assert batch.numpy().tolist() == [[b"\xff", b""], [b"a\0", b"b"]]
    (old,) = (
        Dataset.from_tensor_slices(np.array([b"a", b"b"]))
        .map(lambda text: tf.reshape(text, [1]))
        .padded_batch(2, padded_shapes=[2])
    )
    assert old.numpy().tolist() == [[b"a", b""], [b"b", b""]]


def test_their_shape_is_told_and_what_needs_numbers_says_so():
    (batch,) = lines().batch(3)
    assert tf.shape(batch).numpy().tolist() == [3]
    assert (tf.size(batch).numpy(), tf.rank(batch).numpy()) == (3, 1)
    assert tf.rank("a text").numpy() == 0
    for function in (tf.exp, tf.stop_gradient, lambda x: tf.add_n([x, x])):
        with pytest.raises(ValueError, match="keep texts in NumPy arrays, or give a lookup layer"):
            function(batch)


def test_what_moves_elements_moves_them():
    (a,), words = lines().batch(2).take(1), np.array([b"x", b"y"], object)
    assert tf.concat((words, words), 0).numpy().tolist() == [b"x", b"y"] * 2
    assert tf.concat([a, tf.constant(["z"])], axis=-1).tolist() == [*a.tolist(), "z"]
    assert tf.stack(values=[a, words], axis=1).tolist() == [[a[0], "x"], [a[1], "y"]]
    assert tf.gather(words, [1, 0, 1]).tolist() == ["y", "x", "y"]
    assert tf.boolean_mask(words, [False, True]).tolist() == ["y"]
    assert tf.squeeze(tf.reshape(words, [1, 2, 1])).tolist() == ["x", "y"]
    assert [each.tolist() for each in tf.unstack(tf.expand_dims(words, 1))] == [["x"], ["y"]]
    assert tf.transpose(tf.tile(tf.constant([["a", "b"]]), [2, 1])).tolist() == [
        ["a"] * 2,
        ["b"] * 2,
    ]
    with pytest.raises(ValueError, match="axis"):
        tf.concat([a, a], 3)


def test_iterators_of_numpy_give_bytes():
    data = Dataset.from_tensor_slices((["ä", "b"], [1, 2]))
    assert list(data.as_numpy_iterator()) == [("ä".encode(), 1), (b"b", 2)]
    ((texts, _),) = data.batch(2).as_numpy_iterator()
    assert (texts.dtype, texts.tolist()) == (object, ["ä".encode(), b"b"])


@pytest.mark.parametrize("make", [tf.constant, tf.convert_to_tensor])
def test_constants_of_them_are_as_those_of_datasets(make):
    made = make([["a", "é"], [b"c", "d"]])
    assert made.dtype == tf.string and made.numpy().tolist() == [[b"a", "é".encode()], [b"c", b"d"]]
    assert make("a").numpy() == b"a" and make(b"\xff", tf.string).numpy() == b"\xff"
    assert tf.constant("ab", shape=[2]).numpy().tolist() == [b"ab", b"ab"]
    assert tf.constant(["a", "b"], tf.string, [2, 1]).numpy().tolist() == [[b"a"], [b"b"]]
    assert tf.strings.length(made).numpy().tolist() == [[1, 2], [1, 1]]
    for value, dtype in ((["a", 1], None), ([["a"], ["b", "c"]], None), ("1", tf.float32)):
        with pytest.raises((TypeError, ValueError), match="cannot be converted"):
            make(value, dtype)


def test_a_concrete_function_for_one_takes_others():
    double = tf.function(lambda text: tf.strings.join([text, text]))
    concrete = double.get_concrete_function(tf.constant("a"))
    assert concrete(tf.constant("b")).numpy() == b"bb"
    with pytest.raises(TypeError):
        concrete(tf.constant(1))
    (batch,) = lines().batch(3)
    assert tf.TensorSpec.from_tensor(batch) == tf.TensorSpec([3], tf.string)


def test_they_are_gathered():
    names = tf.constant(["cat", "dog", "é"])
    found = tf.gather(names, [[2, 0], [1, 1]])
    assert found.numpy().tolist() == [["é".encode(), b"cat"], [b"dog", b"dog"]]
    assert tf.gather(names, 1).numpy() == b"dog"
    rows = tf.gather(tf.reshape(names, [1, 3]), tf.argmax([[0.0, 1.0, 0.0]], 1), batch_dims=1)
    assert rows.numpy().tolist() == [b"dog"]
    assert tf.gather(tf.constant(BINARY), [1, 0]).numpy().tolist() == [BINARY[1], BINARY[0]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside"):
        tf.gather(names, 3)
    pairs = lines().enumerate().map(lambda i, line: tf.gather(names, i))
    assert [text.numpy() for text in pairs] == [b"cat", b"dog", "é".encode()]


def test_they_are_chosen_filled_in_and_never_mixed_with_numbers():
    words, mask = tf.constant(["a", "b", "c"]), [True, False, True]
    assert tf.where(mask, words, "").numpy().tolist() == [b"a", b"", b"c"]
    chosen = tf.where([True, False], words[:2], tf.constant(BINARY[:2]))
    assert chosen.numpy().tolist() == [b"a", BINARY[1]]
    assert tf.fill((2, 1), "x").numpy().tolist() == [[b"x"], [b"x"]]
    assert tf.broadcast_to(words, (2, 3)).tolist() == [["a", "b", "c"]] * 2
    assert tf.slice(words, [1], [2]).tolist() == tf.gather_nd(words, [[1], [2]]).tolist()
    assert tf.roll(words, 1, 0).tolist() == ["c", "a", "b"]
    assert sorted(tf.random.shuffle(words)) == ["a", "b", "c"]
    assert tf.stack(["a", "b"]).tolist() == tf.concat([["a"], ["b"]], 0).tolist() == ["a", "b"]
    numbers = tf.constant([0, 1, 2], tf.int64)
    for mixed in (
        lambda: tf.concat([words, numbers], 0),
        lambda: tf.stack([words, [0, 1, 2]]),
        lambda: tf.where(mask, words, 1),
        lambda: tf.gather(numbers, words),
        lambda: tf.where(words),
    ):
        with pytest.raises(ValueError):
            mixed()
