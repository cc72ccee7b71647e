"""Tables of ``tf.lookup``; the numbers are those of TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

lookup = tf.lookup
INDEX = lookup.TextFileIndex


def table(keys, values, default, **dtypes):
    made = lookup.KeyValueTensorInitializer(keys, values, **dtypes)
    return lookup.StaticHashTable(made, default)


def test_a_table_of_texts_gives_numbers_and_back():
    words = table(["a", "b"], [1, 2], -1)
    assert (words.key_dtype, words.value_dtype) == (tf.string, tf.int32)
    found = words.lookup(np.array([["a"], ["z"]]))
    assert found.dtype == tf.int32 and found.numpy().tolist() == [[1], [-1]]
    assert int(words["b"]) == 2 and int(words.size()) == 2 and int(words.default_value) == -1
    keys, values = words.export()
    assert keys.tolist() == ["a", "b"] and values.numpy().tolist() == [1, 2]
    names = table([1, 2], ["x", "long name"], "?")
    assert names.lookup(tf.constant([2, 9])).numpy().tolist() == [b"long name", b"?"]
    assert table(["a"], ["b"], "")[["a", "c"]].tolist() == ["b", ""]


def test_dtypes_are_those_given_and_others_are_refused():
    wide = table([1, 2], [3, 4], -1, key_dtype=tf.int64, value_dtype=tf.float64)
    assert wide.lookup([2, 5]).dtype == tf.float64
    for keys in (tf.constant([1]), ["a"]):
        with pytest.raises(TypeError, match="keys must be int64"):
            wide.lookup(keys)
    with pytest.raises(TypeError, match="keys must be string"):
        table(["a"], [1], 0).lookup([1])
    with pytest.raises(TypeError):
        table(["a"], [1], 1.5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in shape"):
        table(["a", "b"], [1], 0)
    assert int(table(["a", "a"], [1, 1], 0).size()) == 1
    with pytest.raises(tf.errors.FailedPreconditionError, match="'a' has two values: 1 and 2"):
        table(["a", "a"], [1, 2], 0)


def test_a_table_of_a_file(tmp_path):
    words, pairs = tmp_path / "words.txt", tmp_path / "pairs.txt"
    words.write_text("the\ncat\nsat\n")
    pairs.write_text("5 0.5\n6 0.25\n")

    def read(*args, default=-1, **kwargs):
        return lookup.StaticHashTable(lookup.TextFileInitializer(*args, **kwargs), default)

    numbers = words, tf.string, INDEX.WHOLE_LINE, tf.int64, INDEX.LINE_NUMBER
    assert read(*numbers)[["cat", "dog"]].numpy().tolist() == [1, -1]
    assert read(*numbers, value_index_offset=2)[["cat", "dog"]].numpy().tolist() == [3, -1]
    assert int(read(*numbers, vocab_size=2).size()) == 2
    back = read(words, tf.int64, INDEX.LINE_NUMBER, tf.string, INDEX.WHOLE_LINE, default="?")
    assert back[[2, 8]].tolist() == ["sat", "?"]
    columns = pairs, tf.int64, 0, tf.float32, 1
    assert float(read(*columns, delimiter=" ")[6]) == 0.25
    for wrong, words_of_it in (
        (lambda: read(*numbers, vocab_size=9), "has 3 lines, and vocab_size is 9"),
        (lambda: read(*columns), "is no int64"),
        (lambda: read(pairs, tf.string, 0, tf.float32, 1), "no column 1, there are 1"),
        (lambda: read(words, tf.int64, INDEX.WHOLE_LINE, tf.int64, 0), "a whole line is text"),
        (lambda: read(words, tf.string, INDEX.LINE_NUMBER, tf.int64, 0), "is int64, not string"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words_of_it):
            wrong()
    with pytest.raises(tf.errors.NotFoundError):
        read(tmp_path / "none.txt", *numbers[1:])


def test_words_outside_a_vocabulary_go_by_their_hash():
    def vocabulary(keys, many, buckets, **others):
        values = np.arange(many)
        return lookup.StaticVocabularyTable(
            lookup.KeyValueTensorInitializer(keys, values, **others), buckets
        )

    words = vocabulary(["a", "b", "c"], 3, 3)
    assert int(words.size()) == 6
    found = words[["a", "c", "foo", "bar", "baz", "qux"]]
    assert found.dtype == tf.int64 and found.numpy().tolist() == [0, 2, 3, 3, 5, 3]
    numbers = vocabulary([10, 20], 2, 2, key_dtype=tf.int64)
    assert numbers[[10, 20, 30, 31, 32]].numpy().tolist() == [0, 1, 2, 2, 2]
    alone = lookup.StaticVocabularyTable(None, 4, lookup_key_dtype=tf.string)
    assert alone[["x", "y", "z"]].numpy().tolist() == [2, 1, 1] and int(alone.size()) == 4
    with pytest.raises(ValueError, match="StaticHashTable"):
        vocabulary(["a"], 1, 0)
    with pytest.raises(TypeError, match="values must be int64, not int32"):
        lookup.StaticVocabularyTable(lookup.KeyValueTensorInitializer(["a"], [0]), 1)


def test_tables_that_change():
    made = lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    made.insert(["a", "b"], [1, 2])
    made.insert("a", 9)
    assert made[["a", "z"]].numpy().tolist() == [9, -1]
    assert made.lookup(["a", "z"], [7, 8]).numpy().tolist() == [9, 8]
    made.remove(["a", "never"])
    assert int(made.size()) == 1 and made.export()[0].tolist() == ["b"]
    vectors = lookup.experimental.MutableHashTable(tf.int32, tf.float32, [0.0, 0.0])
    vectors.insert([5], [[1.0, 2.0]])
    np.testing.assert_array_equal(vectors[[[5], [6]]], [[[1, 2]], [[0, 0]]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not fit"):
        vectors.insert([5], [1.0])
    dense = lookup.experimental.DenseHashTable(tf.int64, tf.int64, -1, empty_key=0, deleted_key=-9)
    dense.insert_or_assign([5, 6], [1, 2])
    dense.erase([5])
    assert dense[[5, 6]].numpy().tolist() == [-1, 2]
    for use in (lambda: dense[0], lambda: dense.insert([-9], [1])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="cannot be a key"):
            use()


def test_tables_in_datasets_and_in_captured_functions():
    words = table(["a", "b"], [1, 2], -1)
    data = tf.data.Dataset.from_tensor_slices(["a", "b", "zz"])
    assert [int(n) for n in data.map(words.lookup)] == [1, 2, -1]
    assert [n.numpy().tolist() for n in data.batch(2).map(words.lookup)] == [[1, 2], [-1]]
    prices = table([1, 2], [10.5, 20.0], 0.0)
    doubled = tf.function(lambda keys: prices.lookup(keys) * 2, jit_compile="strict")
    for keys, expected in (([1, 2], [21, 40]), ([2, 7], [40, 0])):
        np.testing.assert_array_equal(doubled(tf.constant(keys)), expected)
    counts = lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)

    @tf.function(jit_compile="strict")
    def count(keys):
        counts.insert(keys, counts.lookup(keys) + 1)
        return counts.lookup(keys)

    keys = tf.constant([1, 2], tf.int64)
    assert [count(keys).numpy().tolist() for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]
    names = table([1], ["x"], "")
    with pytest.raises(ValueError, match="gives texts, which a captured function cannot hold"):
        tf.function(names.lookup, jit_compile="strict")(tf.constant([1]))
    lengths = tf.function(words.lookup)
    assert [lengths(np.array([word])).numpy().tolist() for word in "abq"] == [[1], [2], [-1]]
