"""Datasets mixed by chance and by choice, thinned out, and iterators that checkpoints keep."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

Dataset = tf.data.Dataset


def values(dataset):
    return [int(value) for value in dataset.as_numpy_iterator()]


def test_samples_come_by_weight_and_in_order():
    mixed = Dataset.sample_from_datasets(
        [Dataset.range(0, 10_000), Dataset.range(10_000, 20_000)], [0.25, 0.75], seed=3
    )
    first = values(mixed.take(2000))
    low = [value for value in first if value < 10_000]
    assert low == list(range(len(low))) and len(low) / 2000 == pytest.approx(0.25, abs=0.04)
    assert sorted(values(mixed)) == list(range(20_000))  # what is left comes to its end, too


def test_samples_stop_with_the_first_empty_dataset():
    parts = [Dataset.range(3), Dataset.range(100, 200)]
    mixed = Dataset.sample_from_datasets(parts, seed=1, stop_on_empty_dataset=True)
    found = values(mixed)
    assert [value for value in found if value < 3] == [0, 1, 2] and len(found) < 60


def test_a_seed_makes_the_order_and_each_iteration_another():
    def make(**options):
        return Dataset.sample_from_datasets([Dataset.range(50), Dataset.range(50, 99)], **options)

    assert values(make(seed=1)) == values(make(seed=1)) != values(make(seed=2))
    again = make(seed=1)
    assert values(again) == values(again)
    again = make(seed=1, rerandomize_each_iteration=True)
    assert values(again) != values(again)
    fixed = make(seed=1, rerandomize_each_iteration=False)
    assert values(fixed) == values(fixed)


def test_choices_say_whose_turn_it_is():
    parts = [Dataset.range(3), Dataset.range(10, 13)]
    choices = Dataset.from_tensor_slices([1, 0, 1, 1, 1, 0])
    assert values(Dataset.choose_from_datasets(parts, choices)) == [10, 0, 11, 12]
    going_on = Dataset.choose_from_datasets(parts, choices, stop_on_empty_dataset=False)
    assert values(going_on) == [10, 0, 11, 12, 1]


def test_a_choice_is_the_number_of_a_dataset():
    parts = [Dataset.range(3), Dataset.range(10, 13)]
    for wrong in (2, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"choice {wrong}"):
            values(Dataset.choose_from_datasets(parts, Dataset.from_tensors(wrong)))
    with pytest.raises(TypeError):
        values(Dataset.choose_from_datasets(parts, Dataset.from_tensors(1.5)))


def test_samples_of_endless_datasets_are_endless():
    one, endless = Dataset.range(3), Dataset.range(3).repeat()
    make = Dataset.sample_from_datasets
    assert make([one, endless]).cardinality() == tf.data.INFINITE_CARDINALITY
    unknown = make([one, endless], stop_on_empty_dataset=True)
    assert unknown.cardinality() == make([one, one]).cardinality() == tf.data.UNKNOWN_CARDINALITY


def test_random_numbers():
    numbers = Dataset.random(seed=4).take(50)
    assert values(numbers) == values(numbers) != values(Dataset.random(seed=5).take(50))
    assert max(values(numbers)) > 2**31 and min(values(numbers)) >= 0
    assert numbers.element_spec == tf.TensorSpec([], tf.int64)
    others = Dataset.random(4, rerandomize_each_iteration=True).take(50)
    assert values(others) != values(others)
    assert values(Dataset.random().take(9)) != values(Dataset.random().take(9))


def test_weights_are_one_for_each_dataset():
    with pytest.raises(ValueError, match="2 datasets cannot have the weights"):
        Dataset.sample_from_datasets([Dataset.range(3), Dataset.range(3)], [1.0])
    with pytest.raises(ValueError, match="needs a dataset"):
        Dataset.choose_from_datasets([], Dataset.range(3))


@pytest.mark.parametrize("initial", [None, [0.9, 0.1]])
def test_resampling_makes_classes_come_as_often_as_is_wished(initial):
    labels = (np.arange(20_000) % 10 == 0).astype(np.int64)
    dataset = Dataset.from_tensor_slices((np.arange(20_000), labels))
    made = dataset.rejection_resample(lambda x, y: y, [0.5, 0.5], initial, seed=2)
    kinds, elements = zip(*made.as_numpy_iterator(), strict=True)
    assert all(kind == label for kind, (_, label) in zip(kinds, elements, strict=True))
    assert np.mean(kinds) == pytest.approx(0.5, abs=0.03)
    assert sum(kinds) > 1900  # the rare class is kept whole, or nearly so


def test_cardinality_is_a_tensor():
    dataset = Dataset.range(10).batch(4)
    count = tf.data.experimental.cardinality(dataset)
    assert count.numpy() == 3 and count.dtype == tf.int64
    assert len(dataset.take(count // 2)) == 1 and len(dataset.skip(count // 2)) == 2
    assert tf.data.experimental.Counter().cardinality() == tf.data.INFINITE_CARDINALITY


def test_counters_and_older_steps():
    assert values(tf.data.experimental.Counter(3, 2).take(3)) == [3, 5, 7]
    assert tf.data.experimental.Counter(dtype=tf.int32).element_spec.dtype == tf.int32
    odd = Dataset.range(9).filter(lambda x: x % 2 == 1)
    told = odd.apply(tf.data.experimental.assert_cardinality(4))
    assert len(told) == 4 and values(told) == [1, 3, 5, 7]
    for wrong in (3, 5):
        with pytest.raises(tf.errors.FailedPreconditionError, match=f"{wrong} elements"):
            values(odd.apply(tf.data.experimental.assert_cardinality(wrong)))
    unbatched = Dataset.range(4).batch(2).apply(tf.data.experimental.unbatch())
    assert values(unbatched) == [0, 1, 2, 3]


def test_groups_become_one_element_each():
    mean = tf.data.experimental.Reducer(
        init_func=lambda key: (0.0, 0.0),
        reduce_func=lambda state, x: (state[0] + tf.cast(x, tf.float32), state[1] + 1),
        finalize_func=lambda total, count: total / count,
    )
    group = tf.data.experimental.group_by_reducer(lambda x: x % 2, mean)
    assert values(Dataset.range(1, 6).apply(group)) == [3.0, 3.0]
    assert values(Dataset.range(1, 7).apply(group)) == [4.0, 3.0]


def test_elements_by_number_from_a_list_and_up_to_a_number():
    experimental = tf.data.experimental
    assert int(experimental.at(Dataset.range(4).map(lambda x: x * 2), 2)) == 4
    for index in (4, -1):
        with pytest.raises(tf.errors.OutOfRangeError):
            experimental.at(Dataset.range(4), index)
    pairs = experimental.from_list([(1, [2.0]), (3, [4.0, 5.0])])
    assert len(pairs) == 2 and pairs.element_spec[1].shape.as_list() == [None]
    assert [int(n) for n, _ in pairs] == [1, 3]
    for wrong in ([], [1, (2, 3)]):
        with pytest.raises(ValueError):
            experimental.from_list(wrong)
    two = Dataset.from_tensor_slices({"a": [1, 2]})
    padded = two.apply(experimental.pad_to_cardinality(3))
    found = [(int(each["a"]), bool(each["valid"])) for each in padded]
    assert found == [(1, True), (2, True), (0, False)] and len(padded) == 3
    for wrong in (two, Dataset.range(2), two.take(0)):
        with pytest.raises(ValueError):
            list(wrong.apply(experimental.pad_to_cardinality(1)))


def test_older_names_of_random_numbers_optionals_and_settings():
    experimental = tf.data.experimental
    again = Dataset.random(seed=4).take(5)
    assert values(experimental.RandomDataset(seed=4).take(5)) == values(again)
    found = experimental.get_next_as_optional(iter(Dataset.range(1)))
    assert isinstance(found, experimental.Optional) and found.has_value()
    options = tf.data.Options()
    options.threading = tf.data.ThreadingOptions()
    options.threading.private_threadpool_size = 2
    options.experimental_optimization = experimental.OptimizationOptions()
    assert values(Dataset.range(2).with_options(options)) == [0, 1]


def test_a_tuple_stands_for_an_array():
    dataset = Dataset.from_generator(
        lambda: iter([(1,), (2,)]), output_signature=tf.TensorSpec((1,), tf.int64)
    )
    assert [value.tolist() for value in dataset.as_numpy_iterator()] == [[1], [2]]


def test_iterators_go_on_where_a_checkpoint_was_written(tmp_path):
    dataset = Dataset.range(40).shuffle(40).batch(4)
    next(iter(dataset))  # not the first pass
    iterator = iter(dataset)
    saver = tf.train.Checkpoint(iterator=iterator)
    [next(iterator) for _ in range(3)]
    path = saver.save(tmp_path / "ckpt")
    rest = [batch.numpy().tolist() for batch in iterator]
    assert len(rest) == 7
    saver.restore(path).assert_consumed()
    assert [batch.numpy().tolist() for batch in iterator] == rest
    # Another process has made the same dataset, and an iterator of its own.
    fresh = Dataset.range(40).batch(4)
    other = iter(fresh)
    tf.train.Checkpoint(iterator=other).restore(path).expect_partial()
    assert other.get_next().numpy().tolist() == [12, 13, 14, 15]
    [next(other) for _ in range(6)]
    with pytest.raises(tf.errors.OutOfRangeError):
        other.get_next()
