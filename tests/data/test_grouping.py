"""The rarer steps of tf.data.Dataset. Expected values are those of TensorFlow 2.21."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

Dataset = tf.data.Dataset
ROWS = [[0], [1, 2, 3, 4], [5, 6, 7], [7, 8, 9, 10, 11], [13, 14, 15, 16, 19, 20], [21, 22]]


def lists(dataset):
    return [each.tolist() for each in dataset.as_numpy_iterator()]


def ragged(rows=ROWS):
    return Dataset.from_generator(
        lambda: iter(rows), output_signature=tf.TensorSpec([None], tf.int64)
    )


def test_padded_batch():
    rows = ragged([[1], [1, 2], [1, 2, 3]])
    assert lists(rows.padded_batch(2)) == [[[1, 0], [1, 2]], [[1, 2, 3]]]
    fixed = rows.padded_batch(2, padded_shapes=[5], padding_values=-1, drop_remainder=True)
    assert lists(fixed) == [[[1, -1, -1, -1, -1], [1, 2, -1, -1, -1]]]
    of_one = rows.padded_batch(2, padded_shapes=5, padding_values=-1, drop_remainder=True)
    np.testing.assert_array_equal(list(of_one), list(fixed))
    with pytest.raises(ValueError, match="does not fit padded_shapes"):
        list(rows.padded_batch(2, padded_shapes=[2]))
    with pytest.raises(ValueError, match="batch_size is 0"):
        rows.padded_batch(0)
    nested = Dataset.range(3).map(lambda n: (np.ones((n, 2), "f"), {"n": n, "a": np.arange(n)}))
    first = next(
        nested.padded_batch(3, padding_values=(-1.0, {"n": 0, "a": 9})).as_numpy_iterator()
    )
    assert first[0].shape == (3, 2, 2) and first[0][0].tolist() == [[-1.0, -1.0]] * 2
    assert first[1]["a"].tolist() == [[9, 9], [0, 9], [0, 1]] and first[1]["n"].tolist() == [
        0,
        1,
        2,
    ]
    other_order = nested.padded_batch(3, None, (-1.0, {"a": 9, "n": 0}))
    assert next(iter(other_order))[1]["a"].numpy().tolist() == [[9, 9], [0, 9], [0, 1]]
    some = next(iter(nested.padded_batch(3, (None, {"n": [], "a": [4]}), (-1.0, None))))
    assert some[0].shape == (3, 2, 2) and some[1]["a"].numpy()[0].tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="padding_values are"):
        next(iter(nested.padded_batch(3, None, (-1.0, 0))))
    with pytest.raises(TypeError):
        next(iter(rows.padded_batch(3, [2.5])))
    shaped = nested.padded_batch(3, padded_shapes=([None, 3], {"n": [], "a": [4]}))
    assert [a.shape for a in tf.nest.flatten(next(iter(shaped)))] == [(3, 2, 3), (3, 4), (3,)]


@pytest.mark.parametrize("more", [{}, {"drop_remainder": True}])
def test_bucket_by_sequence_length(more):
    found = ragged().bucket_by_sequence_length(lambda row: len(row), [3, 5], [2, 2, 2], **more)
    assert lists(found) == [
        [[1, 2, 3, 4], [5, 6, 7, 0]],
        [[7, 8, 9, 10, 11, 0], [13, 14, 15, 16, 19, 20]],
        [[0, 0], [21, 22]],
    ]
    odd = ragged(ROWS[:3]).bucket_by_sequence_length(len, [3, 5], [2, 2, 2], **more)
    assert len(lists(odd)) == (1 if more else 2)


def test_buckets_of_a_length():
    found = ragged(ROWS[:3]).bucket_by_sequence_length(
        len, [3, 6], [1, 2, 2], pad_to_bucket_boundary=True
    )
    assert lists(found) == [[[0, 0]], [[1, 2, 3, 4, 0], [5, 6, 7, 0, 0]]]
    with pytest.raises(ValueError, match="as long as the last boundary, 5"):
        list(
            ragged().bucket_by_sequence_length(len, [3, 5], [2, 2, 2], pad_to_bucket_boundary=True)
        )
    with pytest.raises(ValueError, match="do not make a batch"):
        list(ragged().bucket_by_sequence_length(len, [3, 5], [2, 2, 2], no_padding=True))
    with pytest.raises(ValueError, match="must grow"):
        ragged().bucket_by_sequence_length(len, [3, 5], [2, 2])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [[0, 1, 2], [3, 4, 5], [6]]),
        ({"drop_remainder": True}, [[0, 1, 2], [3, 4, 5]]),
        ({"shift": 1, "stride": 2, "drop_remainder": True}, [[0, 2, 4], [1, 3, 5], [2, 4, 6]]),
        ({"shift": 2, "stride": 2}, [[0, 2, 4], [2, 4, 6], [4, 6], [6]]),
        ({"shift": 5}, [[0, 1, 2], [5, 6]]),
    ],
)
def test_window(arguments, expected):
    windows = Dataset.range(7).window(3, **arguments)
    assert [[int(n) for n in each] for each in windows] == expected
    assert windows.cardinality() == len(expected) == len(list(windows))
    batches = windows.flat_map(lambda window: window.batch(3))
    assert lists(batches) == expected


def test_windows_of_pairs():
    data = Dataset.from_tensor_slices((np.arange(5), {"b": np.arange(5) * 2})).window(2)
    found = data.flat_map(lambda a, b: Dataset.zip((a.batch(2), b["b"].batch(2))))
    assert [(a.tolist(), b.tolist()) for a, b in found.as_numpy_iterator()] == [
        ([0, 1], [0, 2]), ([2, 3], [4, 6]), ([4], [8]),
    ]  # fmt: skip


def test_a_series_in_windows_trains_a_model():
    series = np.sin(np.arange(60) / 3).astype(np.float32)
    windows = Dataset.from_tensor_slices(series).window(6, shift=1, drop_remainder=True)
    data = (
        windows.flat_map(lambda window: window.batch(6)).map(lambda w: (w[:-1], w[-1:])).batch(11)
    )
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile(tf.keras.optimizers.Adam(0.05), "mse")
    assert model.fit(data, epochs=60, verbose=0).history["loss"][-1] < 0.02


def test_steps_that_look_back_or_choose():
    numbers = Dataset.range(10)
    scanned = numbers.scan(np.int64(0), lambda state, n: (state + n, state * n))
    assert lists(scanned) == [0, 0, 2, 9, 24, 50, 90, 147, 224, 324] and len(scanned) == 10
    assert lists(numbers.take_while(lambda n: n < 4)) == [0, 1, 2, 3]
    total = numbers.reduce(np.int64(0), lambda state, n: state + n)
    assert tf.is_tensor(total) and total == 45 and total.dtype == tf.int64
    pair = numbers.reduce((0, 1.0), lambda state, n: (state[0] + 1, state[1] * 2))
    assert [float(each) for each in pair] == [10, 1024]
    assert lists(Dataset.from_tensor_slices([1, 2, 1, 3]).unique()) == [1, 2, 3]
    assert Dataset.from_tensors(7).get_single_element() == 7
    with pytest.raises(ValueError, match="more than one"):
        numbers.get_single_element()


def test_steps_that_group():
    numbers = Dataset.range(8)
    assert lists(numbers.batch(3).rebatch(2)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert lists(numbers.batch(3).rebatch([2, 1])) == [[0, 1], [2], [3, 4], [5], [6, 7]]
    grouped = Dataset.range(10).group_by_window(lambda n: n % 2, lambda key, d: d.batch(3), 3)
    assert lists(grouped) == [[0, 2, 4], [1, 3, 5], [6, 8], [7, 9]]
    assert lists(numbers.batch(3).unbatch()) == list(range(8))


def spec(dataset):
    return [tuple(each.shape) for each in tf.nest.flatten(dataset.element_spec)]


def test_element_spec():
    data = Dataset.from_tensor_slices((np.zeros((5, 3), "float32"), {"a": np.arange(5)}))
    assert data.element_spec == (
        tf.TensorSpec((3,), tf.float32), {"a": tf.TensorSpec((), tf.int64)},
    )  # fmt: skip
    assert spec(data.batch(2)) == [(None, 3), (None,)]
    assert spec(data.batch(2, drop_remainder=True)) == [(2, 3), (2,)]
    assert spec(data.batch(2).map(lambda x, y: x).prefetch(1).take(1)) == [(None, 3)]
    assert spec(data.batch(2).batch(2)) == [(None, None, 3), (None, None)]
    assert spec(data.batch(2).unbatch()) == [(3,), ()]
    assert spec(data.shuffle(5).repeat().batch(2).cache()) == [(None, 3), (None,)]
    announced = tf.TensorSpec([None], tf.int64)
    assert ragged().element_spec == announced and spec(ragged().padded_batch(2)) == [(None, None)]
    assert spec(data.take(0)) == [(3,), ()]
    assert spec(data.take(0).batch(2)) == [(None, 3), (None,)]
    with pytest.raises(ValueError, match="is empty"):
        Dataset.from_generator(lambda: iter(())).element_spec  # noqa: B018


def test_an_announced_spec_goes_through_steps_and_no_generator_runs_for_it():
    def generator():
        raise AssertionError("it ran")

    announced = (tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([], tf.int32))
    data = Dataset.from_generator(generator, output_signature=announced)
    for each in (data.shuffle(3), data.filter(lambda x, y: True).take(2), data.repeat().skip(1)):
        assert each.element_spec == announced
    assert spec(data.batch(4)) == [(None, None, 2), (None,)]
    assert spec(data.padded_batch(4, ([5, -1], []), drop_remainder=True)) == [(4, 5, None), (4,)]
    assert spec(data.map(lambda x, y: tf.concat([x, x], 1))) == [(None, 4)]
    assert spec(data.map(lambda x, y: (tf.reduce_sum(x, 0), tf.shape(x)))) == [(2,), (2,)]
    assert spec(data.enumerate()) == [(), (None, 2), ()]
    assert spec(Dataset.zip({"a": data, "b": Dataset.range(3)})) == [(None, 2), (), ()]
    wider = Dataset.from_tensors((np.zeros((3, 5), np.float32), 1))
    assert spec(data.concatenate(wider)) == [(None, None), ()]
    assert spec(data.flat_map(lambda x, y: Dataset.from_tensors(x))) == [(None, 2)]
    assert spec(data.group_by_window(lambda x, y: y, lambda k, d: d.batch(2), 2))[1] == (None,)
    assert spec(data.batch(4).rebatch(3)) == [(None, None, 2), (None,)]
    assert spec(data.scan(tf.constant(0), lambda s, e: (s, e[0]))) == [(None, 2)]
    older = Dataset.from_generator(generator, (tf.float32, tf.int32), ([None], None))
    assert older.batch(2).element_spec[0] == tf.TensorSpec([None, None], tf.float32)
    assert older.batch(2).element_spec[1].shape.rank is None


def test_the_last_batch_of_a_window_may_be_short_and_its_spec_says_so():
    pairs = Dataset.zip((Dataset.range(7), Dataset.from_tensors([1.0, 2.0]).repeat()))
    windows = pairs.window(3)
    number = tf.TensorSpec([], tf.int64)
    assert windows.element_spec[0] == tf.data.DatasetSpec(number)
    assert windows.repeat(0).element_spec == windows.element_spec
    rows = windows.flat_map(lambda x, y: Dataset.zip((x.batch(3), y.batch(3, True))))
    assert spec(rows) == [(None,), (3, 2)]
    assert spec(pairs.window(3).flat_map(lambda x, y: x)) == [()]


def test_datasets_of_a_list_are_elements():
    both = Dataset.from_tensor_slices([Dataset.range(3), Dataset.range(5, 8)])
    assert len(both) == 2 and both.element_spec == tf.data.DatasetSpec(tf.TensorSpec([], tf.int64))
    turns = both.interleave(lambda each: each, cycle_length=2)
    assert lists(turns) == [0, 5, 1, 6, 2, 7] and spec(turns) == [()]
    one = Dataset.from_tensors((Dataset.range(2), np.int64(3)))
    assert lists(one.flat_map(lambda d, n: d.map(lambda i: i + n))) == [3, 4]
    batches = Dataset.range(4).map(Dataset.from_tensors).batch(3)
    assert lists(batches.unbatch().flat_map(lambda x: x)) == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="return a Dataset, not"):
        list(Dataset.range(3).flat_map(lambda x: x))


def test_none_stays_in_its_place():
    data = Dataset.range(4).map(lambda x: {"a": (x, None), "b": x})
    batches = data.batch(2), data.padded_batch(2), data.batch(4).rebatch(2), data.cache().batch(2)
    for each in batches:
        first = next(each.as_numpy_iterator())
        assert first["a"][0].tolist() == first["b"].tolist() == [0, 1] and first["a"][1] is None
        assert each.element_spec["a"][1] is None
    x = Dataset.from_tensor_slices((np.arange(4), None)).shuffle(4, 1).batch(4)
    assert [(sorted(a.numpy().tolist()), b) for a, b in x] == [([0, 1, 2, 3], None)]
    with pytest.raises(ValueError, match="is None"):
        list(Dataset.range(3).map(lambda x: None))


def test_where_zeros_do_not_tell_the_first_element_does():
    data = Dataset.range(1, 5).batch(2)

    def checked(x):
        assert int(x[0]) > 0
        return x * 2

    assert spec(data.map(checked)) == [(None,)]
    assert spec(Dataset.range(3).map(lambda n: tf.ones([n + 1, 2]))) == [(None, 2)]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda d: d.sparse_batch(2), "Dataset.sparse_batch .*padded_batch"),
        (lambda d: tf.data.experimental.parallel_interleave, "use Dataset.interleave"),
        (lambda d: d.nonsense(), "no attribute 'nonsense'"),
    ],
)
def test_what_does_not_exist_says_what_to_do(use, words):
    with pytest.raises(AttributeError, match=words):
        use(Dataset.range(3))
    assert not hasattr(Dataset.range(3), "sparse_batch")


def test_what_cannot_be_done_as_asked():
    for wrong in (
        lambda data: data.batch(0),
        lambda data: data.shard(3, 3),
        lambda data: data.shuffle(0),
        lambda data: data.prefetch(-5),
        lambda data: data.window(3, 0),
        lambda data: data.interleave(Dataset.from_tensors, 0),
        lambda data: data.get_single_element(),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            wrong(Dataset.range(3))
    with pytest.raises(TypeError, match="must return a Dataset, not a int"):
        Dataset.range(3).apply(len)
    with pytest.raises(ValueError, match="must return one bool"):
        list(Dataset.range(3).filter(lambda n: n))
    with pytest.raises(ValueError, match="must return one bool"):
        list(Dataset.range(3).take_while(lambda n: n))
    with pytest.raises(ValueError, match="one of window_size"):
        Dataset.range(3).group_by_window(lambda n: n, lambda k, d: d)
    with pytest.raises(ValueError, match="stride is 0"):
        Dataset.range(3).window(2, stride=0)


def test_settings_are_taken_and_change_nothing():
    """As the listings for several workers set them."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = False
    data = tf.data.Dataset.range(3).with_options(options)
    assert [int(x) for x in data] == [0, 1, 2]
    assert options.experimental_distribute.auto_shard_policy == -1
    assert tf.data.Options().deterministic is None
    others = tf.data.Options()
    others.deterministic, others.experimental_distribute.num_devices = True, 2
    both = options.merge(others)
    assert both.deterministic and both.experimental_distribute.num_devices == 2
    assert both.experimental_distribute.auto_shard_policy == -1 and not options.deterministic


def test_a_list_that_map_returns_is_a_tuple():
    pairs = Dataset.range(3).map(lambda n: [n, n + 1])
    assert [tuple(map(int, pair)) for pair in pairs] == [(0, 1), (1, 2), (2, 3)]
    assert len(pairs.batch(3).element_spec) == 2
    inner = Dataset.range(1).map(lambda n: (n, [n, n]))  # but one further in is an array
    assert inner.element_spec[1].shape == (2,)


def test_ignore_errors_goes_on_after_map_and_filter():
    def inverse(n):
        return tf.debugging.check_numerics(1 / tf.cast(n, tf.float32), "of zero")

    data = Dataset.range(-1, 3).map(inverse)
    assert lists(data.ignore_errors()) == [-1.0, 1.0, 0.5]
    with pytest.warns(UserWarning, match="left out.*of zero"):
        list(data.ignore_errors(log_warning=True))
    both = data.concatenate(data)
    assert lists(both.ignore_errors()) == [-1.0, 1.0, 0.5] * 2
    later = Dataset.range(-1, 3).shuffle(1).take(9).map(inverse).filter(lambda x: x < 1)
    assert lists(later.ignore_errors()) == [-1.0, 0.5]
    given = Dataset.from_generator(lambda: iter([1, "two", 3]), tf.int32)
    assert lists(given.ignore_errors()) == [1, 3]


@pytest.mark.parametrize(
    "step",
    [
        lambda d: d.batch(2),
        lambda d: d.shuffle(2),
        lambda d: d.take(3),
        lambda d: d.repeat(2),
        lambda d: d.prefetch(1),
        lambda d: d.scan(0, lambda s, x: (s, x)),
        lambda d: Dataset.zip((d, d)).map(lambda x, y: x),
    ],
)
def test_ignore_errors_raises_where_a_step_between_cannot_go_on(step):
    def checked(n):
        return tf.debugging.check_numerics(1 / tf.cast(n, tf.float32), "of zero")

    broken = step(Dataset.range(-1, 3).map(checked))
    for each in (broken, broken.map(lambda x: x), broken.filter(lambda x: True)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="of zero"):
            list(each.ignore_errors())


def test_an_iteration_goes_on_after_an_error_of_map_and_of_what_a_generator_gave():
    def checked(x):
        return tf.debugging.check_numerics(x, "bad")

    rows = iter(Dataset.from_tensor_slices(np.float32([1, np.nan, 3])).map(checked))
    assert float(next(rows)) == 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
        next(rows)
    assert float(next(rows)) == 3 and next(rows, None) is None

    def gives(types, shapes, *values):
        return iter(Dataset.from_generator(lambda: iter(values), types, shapes))

    for rows in (
        gives(tf.int64, [2], [1, 2], "no number", [3, 4]),
        gives(tf.int64, [2], [1, 2], [1, 2, 3], [3, 4]),
        gives((tf.int64, tf.int64), None, (1, 2), 5, (3, 4)),
    ):
        next(rows)
        with pytest.raises(tf.errors.InvalidArgumentError):
            next(rows)
        assert [int(each) for each in next(rows)] == [3, 4] and next(rows, None) is None
    with pytest.raises(TypeError, match="not both"):
        Dataset.from_generator(list, tf.int32, output_signature=tf.TensorSpec([], tf.int32))


def test_rebatch_in_turns():
    four = Dataset.range(8).batch(4, drop_remainder=True)
    assert lists(four.rebatch([1, 3, 0])) == [[0], [1, 2, 3], [], [4], [5, 6, 7], []]
    assert lists(Dataset.range(2).batch(2).rebatch([0, 1])) == [[], [0], [], [1], []]
    assert lists(four.rebatch(tf.constant(3))) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert spec(four.rebatch([2, 2])) == spec(four.rebatch(2)) == [(2,)]
    assert spec(four.rebatch(3)) == spec(four.rebatch([1, 3])) == [(None,)]
    assert spec(four.rebatch(3, drop_remainder=True)) == [(3,)]
    for sizes in (0, [0, 0], [1, -1]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            four.rebatch(sizes)


def test_a_state_keeps_its_form_and_dtype():
    data = Dataset.range(3)
    assert data.reduce(0, lambda s, x: s + 1).dtype == tf.int32
    for bad in (lambda s, x: x, lambda s, x: (s, s)):
        with pytest.raises(TypeError, match="form and dtypes"):
            data.reduce(0, bad)
        with pytest.raises(TypeError, match="form and dtypes"):
            list(data.scan(0, lambda s, x, bad=bad: (bad(s, x), x)))
    with pytest.raises(TypeError, match="a state and an element"):
        list(data.scan(0, lambda s, x: s))


def test_range_of_another_dtype():
    assert Dataset.range(3, output_type=tf.float32).element_spec == tf.TensorSpec((), tf.float32)


def test_steps_of_data_experimental():
    old = tf.data.experimental
    assert lists(Dataset.range(4).apply(old.map_and_batch(lambda n: n * 2, 3))) == [[0, 2, 4], [6]]
    assert old.get_structure(Dataset.range(4)) == tf.TensorSpec((), tf.int64)
    assert lists(Dataset.range(2).apply(old.prefetch_to_device("/cpu:0"))) == [0, 1]
