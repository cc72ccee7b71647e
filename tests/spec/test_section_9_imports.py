"""Tape semantics 9: import forms in listings, and aliases that are the same objects."""

from __future__ import annotations

import subprocess
import sys

import pytest

import distgrad as tf


@pytest.mark.parametrize(
    "line",
    [
        "import distgrad as tf; tf.keras.layers.Dense(1)",
        "from distgrad import keras; keras.Sequential([keras.layers.Dense(1)])",
        "from distgrad.keras import layers; layers.Dense(1)",
        "from distgrad.keras.models import Sequential; Sequential()",
        "from distgrad.keras.models import Model",
        "from distgrad.keras.datasets import mnist; mnist.load_data",
        "from distgrad.keras.layers import Dense, Dropout, Flatten",
        "from distgrad.keras.optimizers import Adam",
        "from distgrad import math, nn, linalg, random, autodiff, debugging, nest",
        "import distgrad.keras; distgrad.keras.layers",
        "import distgrad as tf; tf.math.tanh; tf.linalg.norm; tf.random.normal; tf.nn.relu",
    ],
)
def test_import_forms(line):
    """`import tensorflow as tf`, `from tensorflow import keras`, ... all work, each on its own."""
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ALIASES = [
    "add=math.add",
    "subtract=math.subtract",
    "multiply=math.multiply",
    "divide=math.divide",
    "tanh=math.tanh",
    "exp=math.exp",
    "sqrt=math.sqrt",
    "square=math.square",
    "abs=math.abs",
    "sign=math.sign",
    "pow=math.pow",
    "negative=math.negative",
    "maximum=math.maximum",
    "minimum=math.minimum",
    "sin=math.sin",
    "cos=math.cos",
    "floor=math.floor",
    "round=math.round",
    "sigmoid=math.sigmoid",
    "reduce_sum=math.reduce_sum",
    "reduce_mean=math.reduce_mean",
    "reduce_max=math.reduce_max",
    "reduce_min=math.reduce_min",
    "reduce_prod=math.reduce_prod",
    "argmax=math.argmax",
    "argmin=math.argmin",
    "reduce_logsumexp=math.reduce_logsumexp",
    "cumsum=math.cumsum",
    "equal=math.equal",
    "less=math.less",
    "greater=math.greater",
    "logical_and=math.logical_and",
    "matmul=linalg.matmul",
    "norm=linalg.norm",
    "einsum=linalg.einsum",
    "eye=linalg.eye",
    "tensordot=linalg.tensordot",
    "math.sigmoid=nn.sigmoid",
    "tanh=nn.tanh",
    "keras.models.Sequential=keras.Sequential",
    "keras.models.Model=keras.Model",
    "keras.Input=keras.layers.Input",
]


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_are_the_same_objects(alias):
    """Aliases are the same objects: `tf.add is tf.math.add`, `tf.tanh`, `tf.reduce_sum`, ..."""

    def get(path):
        found = tf
        for name in path.split("."):
            found = getattr(found, name)
        return found

    one, two = alias.split("=")
    assert get(one) is get(two)


def test_importing_the_package_loads_no_heavy_library():
    """`import distgrad` stays light: SciPy and the Keras room are loaded at their first use."""
    code = (
        "import sys, distgrad\n"
        "heavy = ['scipy', 'distgrad.keras', 'pydantic', 'mpi4py', 'matplotlib', 'pandas']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_does_not_exist_says_what_to_use():
    with pytest.raises(AttributeError, match=r"'saved_model': use model.save"):
        tf.saved_model  # noqa: B018
    with pytest.raises(AttributeError, match="^module 'distgrad' has no attribute 'reluu'$"):
        tf.reluu  # noqa: B018
    assert not hasattr(tf, "raggedd")


@pytest.mark.parametrize(
    ("name", "words"),
    [("LinearOperatorDiag", "use its matrix"), ("experimental", "cg takes"), ("eigs", "'eigs'$")],
)
def test_so_does_one_of_linalg(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(tf.linalg, name)
