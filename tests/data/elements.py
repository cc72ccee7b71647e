"""Small datasets, and what lies in one."""

from __future__ import annotations

import numpy as np

import distgrad as tf
from distgrad.data import Dataset


def values(dataset):
    """The elements as Python's own lists, tuples and numbers."""

    def plain(element):
        if isinstance(element, dict):
            return {key: plain(part) for key, part in element.items()}
        if isinstance(element, tuple):
            return tuple(map(plain, element))
        assert isinstance(element, tf.Tensor)
        return element.numpy().tolist()

    return [plain(element) for element in dataset]


def numbers(n=10):
    return Dataset.from_tensor_slices(np.arange(n))


def unindexed(n=10):
    """The same elements, from a source that knows neither its rows nor its length."""
    return Dataset.from_generator(lambda: iter(np.arange(n)))


SOURCES = [numbers, unindexed]
