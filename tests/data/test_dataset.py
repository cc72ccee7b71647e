import itertools
import threading
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

import distgrad as tf
from distgrad.data import AUTOTUNE, INFINITE_CARDINALITY, UNKNOWN_CARDINALITY, Dataset

from .elements import SOURCES, numbers, unindexed, values


def test_it_is_where_tensorflow_has_it():
    assert tf.data.Dataset is Dataset and tf.data.AUTOTUNE == AUTOTUNE == -1
    assert tf.data.experimental.AUTOTUNE == AUTOTUNE
    assert tf.data.experimental.cardinality(numbers(3)) == 3


def test_slices_of_tuples_and_dicts():
    x, y = np.arange(6.0).reshape(3, 2), np.array([7, 8, 9])
    assert values(Dataset.from_tensor_slices((x, y)))[1] == ([2.0, 3.0], 8)
    assert values(Dataset.from_tensor_slices({"a": x, "b": (y, y)}))[2] == {
        "a": [4.0, 5.0],
        "b": (9, 9),
    }
    (first, *_) = Dataset.from_tensor_slices((x, y))
    assert first[0].dtype == np.float64 and first[1].shape == ()
    assert values(Dataset.from_tensors((x, y))) == [(x.tolist(), y.tolist())]


def test_named_tuples_stay_named():
    pair = namedtuple("pair", "image label")
    dataset = Dataset.from_tensor_slices(pair(np.zeros((4, 2)), np.arange(4))).batch(3)
    (first, _) = dataset
    assert first.image.shape == (3, 2) and first.label.numpy().tolist() == [0, 1, 2]


def test_a_named_tuple_is_one_argument():
    pair = namedtuple("pair", "image label")
    dataset = numbers(3).map(lambda i: pair(i, 2 * i)).filter(lambda each: each.label > 0)
    assert values(dataset.map(lambda each: each.image + each.label)) == [3, 6]


def test_a_function_that_runs_out_does_not_end_the_dataset():
    few = iter([5, 6])
    dataset = numbers(4).map(lambda i: i + next(few))
    with pytest.raises(tf.errors.InvalidArgumentError, match="StopIteration"):
        values(dataset)


def test_pythons_numbers_are_taken_as_tensorflow_takes_them():
    def dtype(value):
        return next(iter(Dataset.from_tensor_slices(value))).dtype

    assert dtype([1, 2]) == np.int32 and dtype([1.5, 2.5]) == np.float32
    assert dtype([2**40, 1]) == np.int64 and dtype([True]) == np.bool_
    assert dtype(np.array([1, 2])) == np.int64 and dtype([np.float64(1)]) == np.float64
    assert dtype(range(3)) == dtype([np.int64(1), 2]) == dtype([np.uint8(1)]) == np.int32
    assert next(iter(numbers(1).map(lambda _: np.int64(1)))).dtype == np.int64


@pytest.mark.parametrize("value", [[[1], [1, 2]], [None, 1], np.float32(1), (np.zeros(2), [1])])
def test_what_has_no_slices(value):
    with pytest.raises(ValueError):
        Dataset.from_tensor_slices(value)


def test_elements_cannot_change_the_source():
    source = np.zeros((4, 2))
    dataset = Dataset.from_tensor_slices(source)
    for each in (dataset, dataset.batch(2)):
        with pytest.raises(ValueError, match="read-only"):
            element = next(each.as_numpy_iterator())
            element += 1
        element = next(iter(each))
        element += 1
        element.numpy()[...] = 7
    assert not source.any()
    source += 1  # which stays the owner's to change
    assert values(dataset.take(1)) == [[1.0, 1.0]]


def test_range():
    assert values(Dataset.range(2, 11, 3)) == [2, 5, 8]
    assert next(iter(Dataset.range(3))).dtype == np.int64
    assert len(Dataset.range(10**12).take(5)) == 5


def test_from_generator():
    def pairs(n=2):
        for i in range(n):
            yield [float(i)], i

    assert values(Dataset.from_generator(pairs, args=(3,))) == [([i], i) for i in range(3)]
    old = Dataset.from_generator(pairs, (tf.float64, np.int16), ((1,), ()))
    assert [part.dtype for part in next(iter(old))] == [np.float64, np.int16]
    signature = (tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int64))
    new = Dataset.from_generator(pairs, output_signature=signature)
    assert [part.dtype for part in next(iter(new))] == [np.float32, np.int64]
    assert values(new) == values(new) == [([0.0], 0), ([1.0], 1)]
    wrong = Dataset.from_generator(pairs, output_signature=(signature[1], signature[1]))
    with pytest.raises(ValueError, match=r"an array \(1,\) where"):
        list(wrong)
    with pytest.raises(ValueError, match="differ in form"):
        list(Dataset.from_generator(pairs, output_signature=signature[0]))
    with pytest.raises(TypeError, match="needs a function"):
        Dataset.from_generator(pairs())


def test_map_gives_the_parts_of_a_tuple_and_makes_arrays_of_what_comes_back():
    pairs = Dataset.from_tensor_slices((np.arange(3.0, dtype=np.float32), np.arange(3)))
    assert values(pairs.map(lambda x, y: {"sum": x + tf.cast(y, x.dtype), "y": y}))[2] == {
        "sum": 4.0,
        "y": 2,
    }
    assert values(numbers(3).map(lambda x: (x, [x, x]), num_parallel_calls=AUTOTUNE))[1] == (
        1,
        [1, 1],
    )
    cast = pairs.map(lambda x, y: (tf.cast(x, tf.float64) / 2, tf.one_hot(y, 3)))
    first = next(iter(cast))
    assert all(type(part) is tf.Tensor for part in first) and first[0].dtype == np.float64
    arrays = next(cast.as_numpy_iterator())
    assert not any(isinstance(part, tf.Tensor) for part in arrays)
    assert values(cast)[1] == (0.5, [0.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="must return"):
        list(numbers().map(lambda x: None))


def test_functions_of_ones_own_get_tensors_as_in_tensorflow():
    kinds = []

    def split(rows):
        kinds.append(type(rows))
        first = rows[:, :2]
        first.set_shape([None, 2])
        return first, rows[:, 2:, tf.newaxis]

    made = Dataset.from_tensor_slices(np.ones((4, 3))).batch(2).map(split)
    assert [part.shape for part in next(iter(made))] == [(2, 2), (2, 1, 1)]
    assert kinds == [tf.Tensor]
    kept = numbers(4).filter(lambda x: tf.equal(x % 2, 0)).reduce(tf.constant(0, tf.int64), tf.add)
    assert int(kept) == 2
    words = Dataset.from_tensor_slices(np.array(["a", "b"])).map(lambda word: len(word.item()))
    assert values(words) == [1, 1]  # strings stay NumPy's


def test_map_waits_for_iteration():
    calls = []
    dataset = numbers(4).map(lambda x: calls.append(int(x)) or x)
    assert calls == []
    next(iter(dataset))
    assert calls == [0]


def test_filter_and_enumerate():
    even = numbers(7).filter(lambda x: x % 2 == 0)
    assert values(even) == [0, 2, 4, 6] and even.cardinality() == UNKNOWN_CARDINALITY
    assert values(even.enumerate(5)) == [(5, 0), (6, 2), (7, 4), (8, 6)]
    assert values(numbers(3).filter(lambda x: tf.less(x, 2))) == [0, 1]


@pytest.mark.parametrize("source", SOURCES)
def test_batch(source):
    assert values(source(5).batch(2)) == [[0, 1], [2, 3], [4]]
    assert values(source(5).batch(2, drop_remainder=True)) == [[0, 1], [2, 3]]
    assert values(source(4).batch(2, drop_remainder=True).unbatch()) == [0, 1, 2, 3]
    assert values(source(8).batch(2).batch(3)) == [[[0, 1], [2, 3], [4, 5]], [[6, 7]]]
    with pytest.raises(ValueError, match="batch_size is 0"):
        source().batch(0)


def test_unequal_elements_make_no_batch():
    ragged = Dataset.range(3).map(lambda n: np.zeros(int(n)))
    with pytest.raises(ValueError, match=r"shapes \(0,\), \(1,\) do not make a batch"):
        list(ragged.batch(2))
    forms = Dataset.from_generator(lambda: iter([1, (1, 2)]))
    with pytest.raises(ValueError, match="differ in form"):
        list(forms.batch(2))


@pytest.mark.parametrize("source", SOURCES)
def test_take_skip_shard(source):
    assert values(source(6).take(2)) == [0, 1] and values(source(6).take(-1)) == list(range(6))
    assert values(source(6).skip(4)) == [4, 5] and values(source(6).skip(-1)) == []
    assert values(source(6).take(9).skip(9)) == []
    assert values(source(7).shard(3, 1)) == [1, 4]
    assert values(source(9).skip(1).shard(2, 0).take(2).batch(2)) == [[1, 3]]
    with pytest.raises(ValueError, match="index 3"):
        source().shard(3, 3)


def test_zip_and_concatenate():
    zipped = Dataset.zip((numbers(3), {"a": Dataset.range(10, 15)}))
    assert values(zipped) == [(i, {"a": 10 + i}) for i in range(3)] and len(zipped) == 3
    assert values(Dataset.zip(numbers(2), numbers(4).repeat())) == [(0, 0), (1, 1)]
    pairs = Dataset.from_tensor_slices((np.arange(2), np.arange(2)))
    assert values(Dataset.zip(pairs, numbers(2)))[1] == ((1, 1), 1)
    assert values(numbers(2).concatenate(Dataset.range(5, 7))) == [0, 1, 5, 6]
    with pytest.raises(TypeError, match="zip takes datasets"):
        Dataset.zip(numbers(), [1, 2])


def test_a_zip_of_arrays_is_as_fast_as_arrays_side_by_side_and_in_the_same_order():
    x, y = np.arange(20), np.arange(40, 17, -1)
    for change in (lambda d: d, lambda d: d.skip(3), lambda d: d.shuffle(5, seed=1)):
        parts = change(Dataset.from_tensor_slices(x)), Dataset.from_tensor_slices({"y": y})
        one_by_one = parts[0].filter(lambda n: True), parts[1]
        found, expected = Dataset.zip(parts), Dataset.zip(one_by_one)
        assert found._rows is None or not parts[0]._shuffled
        for end in (lambda d: d, lambda d: d.batch(4), lambda d: d.shuffle(6, seed=2).batch(3)):
            assert values(end(found)) == values(end(expected))
        assert found.element_spec == expected.element_spec
    assert len(Dataset.zip(Dataset.from_tensor_slices(x), Dataset.from_tensor_slices(y))) == 20
    assert Dataset.zip(Dataset.from_tensor_slices(x), Dataset.from_tensor_slices(y))._rows


def test_datasets_in_one_agree_in_form_and_dtype():
    ints, pairs = Dataset.range(2), Dataset.zip(Dataset.range(2), Dataset.range(2))
    named = Dataset.from_tensor_slices({"a": [1], "b": [2]})
    for one, other in (
        (ints, pairs),
        (ints, ints.map(lambda n: tf.cast(n, tf.float32))),
        (ints, Dataset.from_tensor_slices(["x"])),
        (ints.window(2), ints),
        (pairs, Dataset.zip(ints, ints, ints)),
        (named, Dataset.from_tensor_slices({"a": [1], "c": [2]})),
        (named, Dataset.from_tensor_slices({"a": [1], "b": [2.0]})),
    ):
        with pytest.raises(TypeError, match="Incompatible dataset elements:\n  .* vs.\n  "):
            one.concatenate(other)
        with pytest.raises(TypeError, match="number 1"):
            Dataset.sample_from_datasets([one, other])
        with pytest.raises(TypeError, match="number 2"):
            Dataset.choose_from_datasets([one, one, other], ints)
    assert len(values(ints.concatenate(Dataset.from_tensors(np.zeros(3, np.int64))))) == 3
    texts = Dataset.from_tensor_slices(["x"])
    for same in (["a", "longer"], np.array(["o"], object), np.array([b"b"])):
        assert texts.concatenate(Dataset.from_tensor_slices(same)).element_spec.dtype == tf.string
    days = Dataset.from_tensor_slices(np.array(["2020-01-01"], "M8[D]"))
    assert len(days.concatenate(days)) == 2
    other_order = Dataset.from_tensor_slices({"b": [2], "a": [1]})
    assert values(named.concatenate(other_order)) == [{"a": 1, "b": 2}] * 2

    def unseen():
        raise AssertionError("no element is needed to join datasets")
        yield 1

    Dataset.from_generator(unseen).map(lambda n: n).concatenate(ints)


def test_cache_keeps_the_first_whole_iteration():
    calls = []
    dataset = numbers(3).map(lambda x: calls.append(0) or x).shuffle(3, seed=1).cache()
    next(iter(dataset))  # broken off: not kept
    first = values(dataset)
    made = len(calls)
    assert values(dataset) == first and len(calls) == made


def test_cache_keeps_what_was_taken_to_the_last_element_without_a_look_at_the_end():
    data = Dataset.range(10).shuffle(10).cache()
    first, second = iter(data), iter(data)
    taken = [int(next(first)) for _ in range(10)]
    assert [int(next(second)) for _ in range(10)] == taken == values(data)


def test_prefetch_runs_in_a_thread_and_changes_nothing():
    names = set()

    def note(x):
        names.add(threading.current_thread().name)
        return x

    assert values(numbers().map(note).prefetch(AUTOTUNE)) == list(range(10))
    assert names == {"distgrad-prefetch"}
    endless = iter(numbers().repeat().prefetch(2))
    next(endless)
    endless.close()
    assert not [t for t in threading.enumerate() if t.name == "distgrad-prefetch"]
    broken = numbers().map(lambda x: 1 // int(x - 3)).prefetch(1)
    with pytest.raises(ZeroDivisionError):
        list(broken)


def test_interleave_and_flat_map():
    """The example of TensorFlow's documentation."""
    dataset = Dataset.range(1, 6).interleave(
        lambda x: Dataset.from_tensors(x).repeat(6), cycle_length=2, block_length=4
    )
    rows = [[1] * 4, [2] * 4, [1] * 2, [2] * 2, [3] * 4, [4] * 4, [3] * 2, [4] * 2, [5] * 4]
    assert values(dataset) == [*itertools.chain(*rows), 5, 5]
    flat = Dataset.range(3).flat_map(lambda x: Dataset.range(int(x)))
    assert values(flat) == [0, 0, 1]


CARDINALITIES = [
    (numbers(10), 10),
    (numbers(10).batch(3), 4),
    (numbers(10).batch(3, drop_remainder=True), 3),
    (numbers(10).map(np.negative).enumerate().prefetch(1).cache().shuffle(2), 10),
    (numbers(10).repeat(3).skip(5), 25),
    (numbers(10).repeat(), INFINITE_CARDINALITY),
    (numbers(10).repeat().batch(2).skip(3), INFINITE_CARDINALITY),
    (numbers(0).repeat(), 0),
    (numbers(10).shard(3, 1), 3),
    (numbers(10).concatenate(numbers(5)), 15),
    (numbers(10).concatenate(numbers(5).repeat()), INFINITE_CARDINALITY),
    (numbers(10).filter(bool), UNKNOWN_CARDINALITY),
    (unindexed().batch(2), UNKNOWN_CARDINALITY),
    (unindexed().repeat(3), UNKNOWN_CARDINALITY),
    (numbers(10).batch(2).unbatch(), UNKNOWN_CARDINALITY),
    (Dataset.from_tensor_slices(np.ones((7, 2))).skip(2).unbatch(), 10),
]


@pytest.mark.parametrize(("dataset", "size"), CARDINALITIES)
def test_cardinality(dataset, size):
    assert dataset.cardinality() == size and bool(dataset)
    if size >= 0:
        assert len(dataset) == size == len(list(dataset))
    else:
        with pytest.raises(TypeError, match="infinite" if size == -1 else "unknown length"):
            len(dataset)


def test_as_numpy_iterator():
    assert list(numbers(2).as_numpy_iterator()) == [0, 1]
    assert isinstance(next(numbers(2).as_numpy_iterator()), np.int64)
    assert next(numbers(4).batch(2).as_numpy_iterator()).tolist() == [0, 1]


def test_a_chain_as_in_a_tutorial():
    x = np.arange(40, dtype=np.uint8).reshape(20, 2)
    y = np.arange(20)
    dataset = (
        tf.data.Dataset.from_tensor_slices((x, y))
        .shuffle(20, seed=0)
        .map(lambda x, y: (tf.cast(x, tf.float32) / 255.0, y), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(8)
        .prefetch(tf.data.AUTOTUNE)
    )
    assert len(dataset) == 3
    for _ in range(2):
        batches = list(dataset)
        assert [len(labels) for _, labels in batches] == [8, 8, 4]
        labels = np.concatenate([labels for _, labels in batches])
        images = np.concatenate([images for images, _ in batches])
        assert images.dtype == np.float32 and sorted(labels) == list(range(20))
        np.testing.assert_allclose(images, x[labels] / np.float32(255), rtol=1e-6)


def test_apply():
    assert values(numbers(3).apply(lambda dataset: dataset.skip(1))) == [1, 2]


def test_a_shape_may_be_unknown():
    spec = SimpleNamespace(dtype=np.float32, shape=None)
    dataset = Dataset.from_generator(lambda: [np.zeros(2), np.zeros((3, 3))], output_signature=spec)
    assert [element.shape for element in dataset] == [(2,), (3, 3)]


def test_a_column_of_strings_is_an_array_of_strings():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"work": ["a", "bc", "a"], "age": [1.0, 2.0, 3.0]})
    given = Dataset.from_tensor_slices((dict(frame), frame["age"])).batch(3)
    ((features, _),) = given.as_numpy_iterator()
    assert features["work"].tolist() in (["a", "bc", "a"], [b"a", b"bc", b"a"])
    with pytest.raises(ValueError, match="is not an array"):
        Dataset.from_tensor_slices({"work": pandas.Series(["a", None], dtype=object)})


def test_functions_have_the_values_of_the_names_around_them_when_they_are_given():
    """As in TensorFlow, which traces them then."""
    data, parts = Dataset.range(3), []
    for i in range(3):
        data = data.map(lambda n: n + i)  # noqa: B023
        parts.append(Dataset.range(6).filter(lambda n: n % 3 == i))  # noqa: B023
    assert values(data) == [3, 4, 5]
    assert [values(part) for part in parts] == [[0, 3], [1, 4], [2, 5]]
    names = {"Dataset": Dataset}
    exec("for k in (1, 2): d = Dataset.range(2).map(lambda n: n * k + later(n) * 0)", names)
    names |= {"k": 9, "later": lambda n: n}  # what was not there yet is looked up later
    assert values(names["d"]) == [0, 2]


def test_a_function_that_sets_a_variable_around_it():
    count = 0

    def counted(n):
        nonlocal count
        count += 1
        return n

    data = Dataset.range(3).map(counted)
    count = 10
    list(data)
    assert count == 13


def test_an_element_that_may_not_be_there():
    iterator = iter(Dataset.range(1))
    there, nothing = iterator.get_next_as_optional(), iterator.get_next_as_optional()
    assert bool(there.has_value()) and int(there.get_value()) == 0
    assert not nothing.has_value()
    with pytest.raises(tf.errors.InvalidArgumentError, match="has_value"):
        nothing.get_value()
    spec = tf.TensorSpec([], tf.int64)
    assert there.element_spec == nothing.element_spec == spec
    optional = tf.experimental.Optional
    made = optional.from_value({"a": tf.constant([1.0]), "b": 2})
    assert made.has_value() and int(made.get_value()["b"]) == 2
    assert made.element_spec["a"] == tf.TensorSpec([1], tf.float32)
    assert not optional.empty(spec).has_value() and optional.empty(spec).element_spec == spec


@pytest.mark.parametrize("of_pairs", [[(1, 2), (3, 4)], [(1.0, 2.0), (3.0, 4.0)], [[(1, 2)]]])
def test_tuples_within_a_list_are_numbers_of_python(of_pairs):
    wanted = tf.constant(of_pairs)
    for dataset in (
        tf.data.Dataset.from_tensor_slices(of_pairs).batch(2),
        tf.data.Dataset.from_tensors(of_pairs),
    ):
        (found,) = dataset
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
