"""``keras.utils.legacy``, and classes that a library hands over as ``module_objects``."""

from __future__ import annotations

import pytest

import distgrad as tf

keras = tf.keras
legacy = keras.utils.legacy


class Range:
    """A setting as a library that searches for good ones keeps it: no layer, nothing of Keras."""

    def __init__(self, low=0, high=1):
        self.low, self.high = low, high

    def get_config(self):
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def twice(x):
    return 2 * x


KNOWN = {"Range": Range, "twice": twice}


def test_an_object_and_a_function_and_back():
    entry = legacy.serialize_keras_object(Range(2, 5))
    assert entry == {"class_name": "Range", "config": {"low": 2, "high": 5}}
    again = legacy.deserialize_keras_object(entry, module_objects=KNOWN)
    assert type(again) is Range and vars(again) == {"low": 2, "high": 5}
    assert legacy.serialize_keras_object(twice) == "twice"
    assert legacy.deserialize_keras_object("twice", KNOWN) is twice
    assert legacy.deserialize_keras_object(twice) is twice
    assert vars(legacy.deserialize_keras_object("Range", custom_objects=KNOWN))["high"] == 1
    assert legacy.serialize_keras_object(None) is legacy.deserialize_keras_object(None) is None
    with keras.utils.custom_object_scope({"Other": dict}):
        assert legacy.deserialize_keras_object({"class_name": "Other", "config": {"a": 1}}) == {
            "a": 1
        }
    dense = legacy.serialize_keras_object(keras.layers.Dense(3))
    assert legacy.deserialize_keras_object(dense, vars(keras.layers)).units == 3


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: legacy.serialize_keras_object(3), "3 has no get_config"),
        (lambda: legacy.deserialize_keras_object("Rnge", KNOWN), "Unknown object: 'Rnge'"),
        (
            lambda: legacy.deserialize_keras_object("a", KNOWN, printable_module_name="range"),
            "Unknown range: 'a'",
        ),
        (lambda: legacy.deserialize_keras_object({"a": 1}), "class_name and config, not .'a'"),
        (lambda: legacy.deserialize_keras_object(3), "no object's config or name: 3"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_new_function_takes_module_objects_too():
    entry = keras.saving.serialize_keras_object(Range(2, 5))
    again = keras.saving.deserialize_keras_object(entry, module_objects=KNOWN)
    assert type(again) is Range and again.high == 5
    found = keras.utils.deserialize_keras_object("Range", module_objects=KNOWN)
    assert type(found) is Range and found.high == 1
    assert keras.utils.deserialize_keras_object("twice", module_objects=KNOWN) is twice
    assert keras.utils.deserialize_keras_object("none", module_objects=KNOWN) == "none"


def test_a_seed_generator_is_read_again():
    entry = keras.saving.serialize_keras_object(keras.random.SeedGenerator(7))
    assert (entry["module"], entry["class_name"]) == ("keras.random", "SeedGenerator")
    again = keras.saving.deserialize_keras_object(entry)
    assert type(again) is keras.random.SeedGenerator and again.seed == 7
