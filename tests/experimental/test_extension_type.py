"""tf.experimental.ExtensionType: fields, and objects that go through functions."""

import copy
import pickle
import typing

import pytest

import distgrad as tf

ExtensionType = tf.experimental.ExtensionType


class Masked(ExtensionType):
    """Values, and which of them count."""

    values: tf.Tensor
    mask: tf.Tensor
    name: str = "x"

    def __validate__(self):
        self.values.shape.assert_is_compatible_with(self.mask.shape)

    def filled(self):
        return tf.where(self.mask, self.values, 0.0)


class Box(ExtensionType):
    parts: tuple[Masked, ...]
    table: typing.Mapping[str, tf.Tensor]
    rows: tf.RaggedTensor | tf.Tensor
    how: int | str | None = None


M = Masked([1.0, 2.0], [True, False])


def box() -> Box:
    rows = tf.ragged.constant([[1.0], [2.0, 3.0]])
    return Box([M, Masked([3.0], [True], "y")], {"q": [1.0, 2.0]}, rows, "h")


def test_fields_are_converted_and_shown():
    assert isinstance(M.values, tf.Tensor) and M.mask.dtype == tf.bool
    assert repr(M).startswith("Masked(values=<tf.Tensor: shape=(2,)")
    assert repr(M).endswith("name='x')")
    made = box()
    assert type(made.parts) is tuple and isinstance(made.rows, tf.RaggedTensor)
    assert "ImmutableDict({'q': <tf.Tensor" in repr(made)
    with pytest.raises(TypeError, match="cannot be changed"):
        made.table["q"] = 1

    class Other(ExtensionType):
        shape: tf.TensorShape
        dtype: tf.DType
        words: tf.Tensor

    other = Other([1, None], "float32", ["a", "bc"])
    assert other.shape == (1, None) and other.dtype is tf.float32
    assert other.words.numpy().tolist() == [b"a", b"bc"]


def test_an_object_does_not_change():
    with pytest.raises(AttributeError, match="set by the constructor alone"):
        M.name = "y"
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del M.name
    with pytest.raises(TypeError, match="unhashable"):
        hash(M)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "said"),
    [
        ([[1.0], [True]], {"name": 3}, TypeError, "name: expected 'str', got 'int'"),
        ([[1.0]], {}, TypeError, "missing a required argument: 'mask'"),
        ([[1.0], [True]], {"more": 1}, TypeError, "unexpected keyword argument 'more'"),
        ([[1.0], [True, False]], {}, ValueError, r"\(1,\)"),
        ([tf.ragged.constant([[1.0]]), [True]], {}, TypeError, "got 'RaggedTensor'"),
    ],
)
def test_wrong_values(args, kwargs, error, said):
    with pytest.raises(error, match=said):
        Masked(*args, **kwargs)


def test_wrong_classes():
    with pytest.raises(TypeError, match="is a base class"):
        ExtensionType()
    for kind in (set, tf.Variable, typing.Literal["u"]):
        with pytest.raises(TypeError, match="the field 'x' has a type that is none of a field"):
            type("Wrong", (ExtensionType,), {"__annotations__": {"x": kind}})
    with pytest.raises(ValueError, match="the field 'x' has no annotation"):
        type("Wrong", (ExtensionType,), {"x": 3})


def test_a_constructor_of_its_own_and_a_subclass():
    class Pair(ExtensionType):
        x: tf.Tensor
        twice: tf.Tensor

        def __init__(self, x, forgets=False):
            self.x = x
            if not forgets:
                self.twice = 2.0 * self.x

    assert float(Pair(tf.constant(3.0)).twice) == 6.0
    with pytest.raises(ValueError, match="the field 'twice' is not set"):
        Pair(1.0, forgets=True)

    class More(Masked):
        extra: int = 1
        last: bool

    assert More([1.0], [True], last=True).extra == 1


def test_equality():
    assert bool(Masked([1.0, 2.0], [True, False]) == M) and not bool(M != M)
    assert not bool(Masked([1.0, 3.0], [True, False]) == M)
    assert (Masked([1.0], [True]) == M) is False and (M != 3) is True
    assert (Masked([1.0, 2.0], [True, False], "y") == M) is False
    assert bool(box() == box())


def test_copies():
    for made in (copy.deepcopy(box()), pickle.loads(pickle.dumps(box()))):
        assert bool(made == box()) and made.parts[1].name == "y"


def test_functions_take_and_give_them():
    calls = []

    @tf.function
    def twice(b):
        calls.append(b.how)
        parts = [Masked(2.0 * p.values, p.mask, p.name) for p in b.parts]
        return Box(parts, {k: v + 1.0 for k, v in b.table.items()}, b.rows * 2.0, b.how), b.rows

    for _ in range(3):
        made, rows = twice(box())
    assert calls == ["h"] and len(twice.executors) == 1
    assert isinstance(made, Box) and made.how == "h" and made.parts[1].name == "y"
    assert made.parts[0].values.numpy().tolist() == [2.0, 4.0]
    assert made.table["q"].numpy().tolist() == [2.0, 3.0]
    assert made.rows.to_list() == [[2.0], [4.0, 6.0]] and rows.to_list() == [[1.0], [2.0, 3.0]]
    assert twice(Box(box().parts, {"q": 1.0}, [[1.0]], 2))[0].how == 2 and calls == ["h", 2]


@pytest.mark.parametrize("captured", [False, True])
def test_gradients_through_loops_and_branches(captured):
    def run(m):
        grown = tf.while_loop(
            lambda i, m: i < 3, lambda i, m: (i + 1, Masked(m.values**2, m.mask)), [0, m]
        )[1]
        return tf.cond(tf.constant(True), lambda: grown, lambda: m).filled()

    run = tf.function(run) if captured else run
    assert run(M).numpy().tolist() == [1.0, 0.0]
    x = tf.constant([2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = run(Masked(x, [True, False]))
    assert y.numpy().tolist() == [256.0, 0.0]
    assert tape.gradient(y, x).numpy().tolist() == [8 * 2.0**7, 0.0]


def test_what_is_left_out_says_what_to_do():
    with pytest.raises(AttributeError, match="ExtensionType objects of what a dataset gives"):
        tf.experimental.BatchableExtensionType  # noqa: B018
    with pytest.raises(ValueError, match="cannot be converted to a tensor"):
        tf.abs(M)
