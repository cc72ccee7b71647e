"""The parameters of functions and constructors against those of TensorFlow and Keras."""

from __future__ import annotations

import functools
import inspect
import json
import math
from pathlib import Path

import pytest

import distgrad as tf
from distgrad.core.primitive import Primitive

STORED = json.loads((Path(__file__).parent / "reference" / "signatures.json").read_text())
NAMED, MANY = (0, 1), (2, 4)  # kinds of parameters: may be given by place, * and **

# What is other here, and why.
_NO_LAYOUT = {"no layout"}  # of DTensor
_AT_WRONG_PLACES = "no bad_indices_policy"  # is an error, as by default on a CPU
_MADE_BY_OTHERS = (
    "RaggedTensor",
    "Tensor",
    "data.Dataset",
    "data.Iterator",
    "data.experimental.Optional",
    "queue.QueueBase",
    "summary.SummaryWriter",
)
OTHER = {
    **dict.fromkeys(["fill", "ones", "ones_like", "zeros", "zeros_like"], _NO_LAYOUT),
    "keras.Variable": _NO_LAYOUT,
    "gather_nd": {_AT_WRONG_PLACES},
    **{
        name: {_AT_WRONG_PLACES, "order"}
        for name in (
            "scatter_nd",
            *(f"tensor_scatter_nd_{n}" for n in ("add", "max", "min", "sub")),
        )
    },
    "Variable": {  # of graphs
        "no variable_def",
        "no import_scope",
        "no experimental_enable_variable_lifting",
        "trainable=True, not None",
    },
    "constant_initializer": {"no support_partition"},  # of parameter servers
    "errors.OpError": {"no error_code"},  # which the class has
    "summary.create_file_writer": {"no experimental_trackable", "no experimental_mesh"},
    # Keras's order differs among the ranks, and TensorFlow's among these checks.
    "keras.layers.Conv3DTranspose": {"order"},
    "keras.layers.Convolution3DTranspose": {"order"},
    "debugging.assert_none_equal": {"order"},
    # The name came first in Keras 2; a dtype is never given by place.
    "keras.Metric": {"order"},
    "keras.metrics.Metric": {"order"},
    "keras.metrics.Metric.add_weight": {"initializer='zeros', not None"},
    "keras.Model.call": {"needs inputs"},
    "keras.Model.export": {"format='onnx', not 'tf_saved_model'"},
    "keras.Sequential.export": {"format='onnx', not 'tf_saved_model'"},
    # Of float8, of graphs that are made, and of defaults that mean the same.
    **dict.fromkeys(
        ["keras.Model.add_weight", "keras.Sequential.add_weight", "keras.layers.Layer.add_weight"],
        frozenset({"no overwrite_with_gradient"}),
    ),
    **dict.fromkeys(["matmul", "linalg.matmul"], frozenset({"no grad_a", "no grad_b", "order"})),
    **dict.fromkeys(["norm", "linalg.norm"], frozenset({"keepdims=False, not None"})),
    "data.Dataset.shuffle": {"reshuffle_each_iteration=None, not True"},
    "random.categorical": {"dtype=<class 'numpy.int64'>, not None"},
    "nn.sigmoid_cross_entropy_with_logits": {"labels is needed", "logits is needed"},
}


def ours(name):
    """What has that name here, or None."""
    try:
        return functools.reduce(getattr, name.split("."), tf)
    except AttributeError:
        return None


def keywords_of(function):
    """The parameters by name, with those of base classes that ``**kwargs`` go to."""
    places = [function]
    if inspect.isclass(function):
        places = [cls.__init__ for cls in function.__mro__ if "__init__" in vars(cls)]
    found = {}
    for place in places:
        parameters = inspect.signature(place).parameters
        found = {**parameters, **found}
        if not any(p.kind == 4 for p in parameters.values()):
            break
    return found


def same(one, other):
    """Whether two defaults mean one thing: 1 is (1, 1), too."""
    for a, b in ((one, other), (other, one)):
        if isinstance(a, tuple) and a and all(each == b for each in a):
            return True
    return one == other or str(one).lower() == str(other).lower()


def differences(name, function):
    theirs = inspect.signature(eval(f"lambda {STORED[name]}: 0", {"inf": math.inf})).parameters
    own = list(inspect.signature(function).parameters.values())
    if own and own[0].name == "self":
        del own[0]
    if isinstance(function, Primitive) and function.also:  # TensorFlow's name of the first
        own[0] = own[0].replace(name=function.also)
    known = {**keywords_of(function), **{p.name: p for p in own}}
    names = [p.name for p in theirs.values() if p.kind not in MANY]
    if not any(p.kind == 4 for p in known.values()):
        yield from (f"no {each}" for each in names if each not in known)
    for each in names:
        default = theirs[each].default
        found = known.get(each, theirs[each]).default
        plain = default not in (..., inspect.Parameter.empty) and each != "name"
        if plain and found is inspect.Parameter.empty:
            yield f"{each} is needed"
        elif plain and not same(default, found):
            yield f"{each}={found!r}, not {default!r}"
    placed = [p.name for p in own if p.kind in NAMED]
    wanted = [p.name for p in theirs.values() if p.kind in NAMED]
    if placed[: len(wanted)] != wanted[: len(placed)]:
        yield "order"
    yield from (
        f"needs {p.name}"
        for p in own
        if p.default is p.empty and p.kind not in MANY and p.name not in names
    )


@pytest.mark.parametrize(
    "room", ["", *sorted({name.split(".")[0] for name in STORED if "." in name})]
)
def test_parameters_have_their_names_order_and_defaults(room):
    names = [n for n in STORED if (n.partition(".")[0] == room if room else "." not in n)]
    found = {}
    for name in names:
        function = ours(name)
        skipped = name in _MADE_BY_OTHERS or name.endswith("DType") or not callable(function)
        if not skipped and function is not dict:
            found[name] = set(differences(name, function))
    wrong = {n: d for n, d in found.items() if d != OTHER.get(n, set())}
    assert not wrong


ROOMS = {name.rpartition(".")[0] for name in STORED if name.startswith("keras.")}


@pytest.mark.parametrize(
    "room", sorted(r for r in ROOMS if inspect.ismodule(ours(r)) and r.count(".") == 1)
)
def test_an_import_of_all_names_gives_all_of_them(room):
    module = ours(room)
    found: dict = {}
    exec(f"from {module.__name__} import *", found)
    names = {n.rpartition(".")[2] for n in STORED if n.rpartition(".")[0] == room}
    assert {name for name in names if hasattr(module, name)} - set(found) == set()


def test_an_import_of_all_of_keras_gives_its_modules_and_old_functions():
    found: dict = {}
    exec("from distgrad.keras import *\nfrom distgrad.keras.backend import *", found)
    names = {"applications", "config", "dtype_policies", "tree", "mean", "floatx", "conv2d"}
    assert names - set(found) == set()
    exec("from distgrad.keras.datasets import *", found)
    assert "mnist" in found
