"""KerasTensor: a tensor that has no value yet; layers called on one are recorded as nodes.

A model made of inputs and outputs runs its nodes in the order in which they were recorded. The
shape and dtype of a layer's outputs come from running it on zeros, twice: axes that are None are
given two different sizes, and an output's axis that differs between the runs is None as well.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.composite import Composite
from distgrad.core.dtypes import DType, of_input, string
from distgrad.core.errors import InvalidArgumentError, NoValueError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.keras.operators import ONE_SIDED, TWO_SIDED, operator

Sizes = tuple[int, ...]  # as SIZES, and that of the last axis where it has one of its own
Only = tuple[int | None, int | None]

_count = itertools.count().__next__
# Of the first axis, and of the others that are None.
SIZES = ((2, 32), (3, 48))
DIVISIBLE_SIZES = ((60, 120), (120, 240))
_MOST_ROOM = 1 << 16  # places that are tried for a layer that looks for one of them
_TRIES = 8  # sizes of batch
SHORT_SIZES = ((2, 3), (3, 4))  # for tables of positions that have fewer rows than that
LONG_SIZES = ((2, 256), (3, 320))  # for windows after windows, which need more elements than that


class Node:
    """One call of a layer on KerasTensors: ``outputs = layer(*args, **kwargs)``."""

    def __init__(self, layer: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        self.layer = layer
        # Nests of its own: a user may write into the lists that go in and come out.
        self.args, self.kwargs, self.outputs = tree.copied((args, kwargs, outputs))
        self.number = _count()  # nodes in the order of their numbers can be run one by one
        self.index = len(layer._inbound_nodes)
        layer._inbound_nodes.append(self)
        for index, tensor in enumerate(symbols(outputs)):
            tensor.node, tensor.index = self, index

    @property
    def needed(self) -> list[KerasTensor]:
        """All KerasTensors that the layer was called on."""
        return symbols((self.args, self.kwargs))

    @property
    def inputs(self) -> Any:
        """What the layer was called on: one KerasTensor, or a nest of them."""
        if len(self.args) == 1 and not symbols(self.kwargs):
            return self.args[0]
        return self.needed


class KerasTensor:
    """A tensor of a model that is being described; ``shape`` holds None for unknown sizes.

    ``+ - * / // % ** @``, comparisons but ``==``, indexing, ``reshape``, ``squeeze`` and the
    functions of ``keras.ops`` give further ones. Other functions of ``distgrad`` do not take it;
    they go into a layer. One that is ``ragged`` stands for a ragged tensor, whose rows have any
    lengths along the axes that are None, one that is ``sparse`` for a sparse one. Raises ValueError
    for both.
    """

    __array_priority__ = 200
    __array_ufunc__ = None

    def __init__(
        self,
        shape: Any,
        dtype: Any = "float32",
        sparse: bool = False,
        ragged: bool = False,
        record_history: bool = True,
        name: str | None = None,
    ) -> None:
        if sparse and ragged:
            raise ValueError("a KerasTensor is sparse or ragged, not both at the same time")
        self.shape = tuple(None if n is None else int(n) for n in shape)
        self.sparse, self.ragged = bool(sparse), bool(ragged)
        self.dtype: DType = of_input(dtype)
        self.node: Node | None = None
        self.index = 0
        self._name = name
        self._keras_mask: KerasTensor | None = None  # that of the tensors it stands for

    @property
    def name(self) -> str:
        return self._name or (self.node.layer.name if self.node else "keras_tensor")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def composite(self) -> bool:
        """Whether it stands for a sparse or a ragged tensor."""
        return self.sparse or self.ragged

    def alike(self, shape: Any, dtype: Any) -> KerasTensor:
        """A further one that is sparse or ragged as this is, with its mask."""
        made = KerasTensor(shape, dtype, self.sparse, self.ragged)
        made._keras_mask = self._keras_mask
        return made

    def __repr__(self) -> str:
        what = f"shape={self.shape}, dtype={self.dtype.name}"
        kind = f"sparse={self.sparse}, ragged={self.ragged}"
        return f"<KerasTensor {what}, {kind}, name={self.name}>"

    def _refuse(self, what: str) -> NoValueError:
        return NoValueError(
            f"{self!r} has no value, and {what} needs one: it stands for an input of the model "
            "that is being described. Use a function of keras.ops (keras.ops.relu for tf.nn.relu, "
            "keras.ops.reshape for tf.reshape), or put yours into a layer: "
            "keras.layers.Lambda(lambda x: ...)(tensor), or a Layer of your own."
        )

    def _read(self) -> Tensor:  # what every function of distgrad asks a non-tensor for
        raise self._refuse("a function of distgrad")

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise self._refuse("NumPy")

    def __bool__(self) -> bool:
        raise self._refuse("a Python condition")

    def __iter__(self) -> Any:
        raise self._refuse("a loop over it")

    def __len__(self) -> int:
        raise self._refuse("len()")

    def __float__(self) -> float:
        raise self._refuse("float()")

    def __int__(self) -> int:
        raise self._refuse("int()")


for _name, _operation in (*TWO_SIDED.items(), *ONE_SIDED.items()):
    setattr(KerasTensor, f"__{_name}__", operator(_operation))
    if _name in TWO_SIDED:
        setattr(KerasTensor, f"__r{_name}__", operator(_operation, reflected=True))


for _name in ("reshape", "squeeze"):
    setattr(KerasTensor, _name, operator(_name))


def symbols(nest: Any) -> list[KerasTensor]:
    """The KerasTensors in a nest, in order."""
    return [leaf for leaf in tree.flatten(nest) if isinstance(leaf, KerasTensor)]


def sources(tensor: Any) -> list[KerasTensor]:
    """The inputs of models that a KerasTensor comes from, each once; one that is none as it is."""
    if not isinstance(tensor, KerasTensor):
        return tensor
    found: dict[int, KerasTensor] = {}
    visited: set[int] = set()
    waiting = [tensor]
    while waiting:
        tensor = waiting.pop()
        if tensor.node is None or not tensor.node.needed:
            found.setdefault(id(tensor), tensor)
        elif tensor.node.number not in visited:
            visited.add(tensor.node.number)
            waiting += reversed(tensor.node.needed)
    return list(found.values())


def any_symbolic(args: tuple, kwargs: Mapping[str, Any]) -> bool:
    """Whether a layer is called on KerasTensors, in nests or by name."""
    for value in args:
        if type(value) is KerasTensor:
            return True
        if tree.is_nested(value) and symbols(value):
            return True
    return bool(kwargs) and bool(symbols(dict(kwargs)))


def record(layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Calls a layer on KerasTensors: gives KerasTensors, and remembers the call."""
    taken = (
        kwargs if layer._takes_training else {n: v for n, v in kwargs.items() if n != "training"}
    )
    outputs = layer.compute_output_spec(*args, **taken)

    def own(tensor: Any) -> Any:
        if not isinstance(tensor, KerasTensor):
            return tensor
        return tensor.alike(tensor.shape, tensor.dtype)

    outputs = tree.map_structure(own, outputs)  # one for each output of each call
    Node(layer, args, kwargs, outputs)
    return outputs


def of_any_batch(shapes: Any) -> Any:
    """Shapes in a nest, each with None for its first axis."""
    if isinstance(shapes, Mapping):
        return {key: of_any_batch(item) for key, item in shapes.items()}
    if isinstance(shapes, (list, tuple)):
        if any(isinstance(item, (list, tuple, Mapping)) for item in shapes):
            return type(shapes)(map(of_any_batch, shapes))
        return (None, *shapes[1:]) if shapes else shapes
    return shapes


def of_shapes(shapes: Any) -> Any:
    """KerasTensors of these shapes: of one, or of a nest of them; None for None."""
    if shapes is None:
        return None
    if isinstance(shapes, Mapping):
        return {key: of_shapes(shape) for key, shape in shapes.items()}
    if isinstance(shapes, (list, tuple)) and any(isinstance(n, (list, tuple)) for n in shapes):
        return type(shapes)(map(of_shapes, shapes))
    return KerasTensor(shapes)


def _trials(layer: Any) -> Sequence[Sizes]:
    """Two sizes of axes that are None: room for the windows of a layer, and one place more."""
    reach, step = getattr(layer, "_windows", (1, 1))
    if reach <= SIZES[0][1] and step <= SIZES[1][1] - SIZES[0][1]:
        return SIZES
    longest = max(reach, SIZES[0][1])
    return (2, longest), (3, longest + max(step, SIZES[1][1] - SIZES[0][1]))


def infer(
    layer: Any,
    args: tuple,
    kwargs: Mapping[str, Any],
    make: Callable[[list[int], np.dtype], np.ndarray] = np.zeros,
    trials: Sequence[Sizes] | None = None,
) -> Any:
    """KerasTensors like the outputs of the layer, which is built by this.

    ``make`` makes the values on which the layer is tried out: ones where it divides by zeros.
    """
    from distgrad.core.texts import are_texts, dtype_of
    from distgrad.keras.layers.calling import quiet
    from distgrad.ops import streams

    def run(sizes: Sizes) -> Any:
        def zeros(leaf: Any) -> Any:
            if not isinstance(leaf, KerasTensor):
                return leaf
            if leaf.ragged:
                return _rows(leaf, sized(leaf.shape), make)
            if leaf.dtype is string:
                texts = np.full(sized(leaf.shape), layer.some_text(sizes[0]))
                return SparseTensor.of_dense(texts) if leaf.sparse else texts
            if leaf.sparse:
                return SparseTensor.of_dense(make(sized(leaf.shape), leaf.dtype.numpy_dtype))
            tensor = Tensor(make(sized(leaf.shape), leaf.dtype.numpy_dtype))
            if leaf._keras_mask is not None:
                tensor._keras_mask = Tensor(np.ones(sized(leaf._keras_mask.shape), np.bool_))
            return tensor

        def sized(shape: tuple) -> list[int]:
            usual = [sizes[0], *[sizes[1]] * (len(shape) - 1)]
            if len(shape) > 2:
                usual[-1] = sizes[-1]
            return [usual[axis] if n is None else n for axis, n in enumerate(shape)]

        with recording.paused(), quiet(layer), np.errstate(all="ignore"):
            return layer(*tree.map_structure(zeros, args), **tree.map_structure(zeros, kwargs))

    given, trials = trials, trials or _trials(layer)
    only: Only = None, None  # the sizes for which alone the layer works
    shapes = [tensor.shape for tensor in symbols((args, kwargs))]
    try:
        first = run(trials[0])  # draws the initial weights; whatever else is drawn is drawn again
    except InvalidArgumentError as error:
        if make is not np.ones and str(error).endswith("integer division by zero"):
            return infer(layer, args, kwargs, np.ones, given)
        for others in _last_sizes(error, shapes, trials):
            with contextlib.suppress(InvalidArgumentError):
                return infer(layer, args, kwargs, make, others)
        of_batch = hasattr(error, "sizes") and len(trials[0]) == 2
        found = _only_sizes(run, error, trials[0]) if of_batch else None
        for others in _other_sizes(error, given) if found is None else ():
            with contextlib.suppress(InvalidArgumentError):
                return infer(layer, args, kwargs, make, others)
        if found is None and given is None:
            found = _only_sizes(run, error, trials[0])
        if found is None:
            raise
        only, first = found
    second = first
    if any(None in shape for shape in shapes) and None in only:
        try:
            with streams.replayed():
                second = run((only[0] or trials[1][0], only[1] or trials[1][1], *trials[1][2:]))
        except InvalidArgumentError as error:
            if given is not None:
                raise
            for others in _other_sizes(error, given):
                with contextlib.suppress(InvalidArgumentError, LookupError):
                    return infer(layer, args, kwargs, make, others)
            with streams.replayed():
                second, only = _again(run, first, trials, only)
    batch = None if any(shape[:1] == only[:1] for shape in shapes) else only[0]
    known = {n for shape in shapes for n in shape}
    open_sizes = {n for n in only if n in trials[0] and n not in known}  # no known axis has it

    if len(tree.flatten(first)) != len(tree.flatten(second)):
        raise ValueError("how many outputs there are depends on the size of an axis that is None")

    def spec(one: Any, other: Any) -> Any:
        composite = isinstance(one, Composite)
        if not (isinstance(one, Tensor) or are_texts(one) or composite):
            return one
        sizes = zip(tuple(one.shape), tuple(other.shape), strict=True)
        shape = [a if a == b and a not in open_sizes else None for a, b in sizes]
        if batch is not None and shape[:1] == [batch]:
            shape[0] = None
        kind = one.kind if composite else ""
        dtype = one.dtype if composite else dtype_of(one)
        made = KerasTensor(shape, dtype, sparse=kind == "sparse", ragged=kind == "ragged")
        masks = (getattr(each, "_keras_mask", None) for each in (one, other))
        made._keras_mask = spec(*masks)
        return made

    return tree.map_structure(spec, first, second)


def _rows(tensor: KerasTensor, shape: list[int], make: Callable[..., np.ndarray]) -> Any:
    """A ragged tensor for one that stands for it."""
    from distgrad.ragged import RaggedTensor

    texts = tensor.dtype is string
    values = np.full(shape, "a") if texts else make(shape, tensor.dtype.numpy_dtype)
    unknown = [axis for axis, size in enumerate(tensor.shape) if axis and size is None]
    return RaggedTensor.from_tensor(values, ragged_rank=max(unknown, default=1))


def _again(
    run: Callable[[Sizes], Any], first: Any, trials: Sequence[Sizes], only: Only
) -> tuple[Any, Only]:
    """What a layer gives for the second sizes, and for which sizes alone it works.

    The size of an axis may have fitted a known one by chance in the first trial: it is the only one
    then.
    """
    choices = [[n] if n else new for n, *new in zip(only, *trials[::-1], strict=True)]
    for sizes in itertools.product(*choices):
        kept = tuple(
            None if n == choice[0] and choice[1:] else n
            for n, choice in zip(sizes, choices, strict=True)
        )
        if sizes == trials[0]:
            return first, (kept[0], kept[1])
        try:
            return run(sizes), (kept[0], kept[1])
        except InvalidArgumentError as error:
            failed = error
    raise failed


def _other_sizes(error: Exception, given: Any) -> Sequence[Any]:
    """What is tried where a layer did not take the sizes that it was given, or the usual ones."""
    found = [SHORT_SIZES, LONG_SIZES, DIVISIBLE_SIZES] if given is None else []
    room = getattr(error, "largest", -1) + 1  # for the index that it looks for
    wide = (2, room), (3, room + 1)
    if SIZES[1][1] < room < _MOST_ROOM and given != wide:
        found.append(wide)
    return found


def _last_sizes(
    error: Exception, shapes: Sequence[tuple], trials: Sequence[Sizes]
) -> Iterator[Sequence[Sizes]]:
    """The same trials with other sizes of the last axis, where one beside it is unknown, too."""
    if len(trials[0]) == 2 and any(s[-1:] == (None,) and None in s[1:-1] for s in shapes):
        for last in _met(error, trials[0][1]):
            yield [(*sizes, last) for sizes in trials]


def _only_sizes(
    run: Callable[[Sizes], Any], error: Exception, sizes: Sizes
) -> tuple[Only, Any] | None:
    """The one size of batch, of the other axes or of both for which a layer works (None: any), and
    what it gives there; None without one."""
    waiting: list[tuple[Exception, Sizes]] = [(error, sizes)]
    tried = {sizes}
    while waiting and len(tried) < _TRIES:
        error, (batch, size) = waiting.pop(0)
        batches = list(
            dict.fromkeys([*_batches_for(error, batch), *_met(error, batch, first=True)])
        )
        others = _met(error, size)
        found = [(other, size) for other in batches] + [(batch, other) for other in others]
        for new in [*found, *itertools.product(batches, others)]:
            if new in tried or not all(0 < n < _MOST_ROOM for n in new):
                continue
            tried.add(new)
            try:
                outputs = run(new)
            except InvalidArgumentError as again:
                waiting.append((again, new))
            else:
                kept = tuple(n if n != usual else None for n, usual in zip(new, sizes, strict=True))
                return (kept[0], kept[1]), outputs
    return None


def _met(error: Exception, size: int, first: bool = False) -> list[int]:
    """Sizes that may fit where one of ``size`` did not, of the ``first`` axis or of others:
    those that it met in the shapes of the message, in the same place from the end before others."""
    if hasattr(error, "sizes"):  # which tell of the batch
        return []
    shapes = [
        [int(n) for n in re.findall(r"\d+", text)][::-1]
        for text in re.findall(r"[\[(]([\d, ]+)[\])]", str(error))
    ]
    places = {
        place
        for shape in shapes
        for place, n in enumerate(shape)
        if n == size and (not first or place == len(shape) - 1)
    }
    beside = [shape[place] for shape in shapes for place in places if place < len(shape)]
    rest = [n for shape in shapes for n in shape] if places and not first else []
    return [n for n in dict.fromkeys(beside + rest) if n not in (1, size)]


def _batches_for(error: Exception, batch: int) -> list[int]:
    """Sizes of batch that may fit where one of ``batch`` did not.

    Layers reshape to the number of all tokens of a batch, which fixes the size of the batch. So do
    constants beside it: the edges of a graph, of which each batch has all nodes. The message has
    their shapes, of which the first sizes are looked at: others may be large beside a batch.
    """
    if hasattr(error, "largest"):
        return [error.largest + 1]
    if hasattr(error, "sizes"):
        found, wanted = error.sizes
        fits = found > 0 and wanted > 0 and batch * wanted % found == 0
        return [batch * wanted // found] if fits else []
    return [int(number) for number in re.findall(r"[\[(](\d+)[,\])]", str(error))]


def only_node(layer: Any) -> Node:
    """The first symbolic call of a layer. Raises AttributeError where there was none."""
    if not layer._inbound_nodes:
        raise AttributeError(f"layer {layer.name!r} has not been called on a keras.Input")
    return layer._inbound_nodes[0]


_MODELS = ("Functional", "Model", "Sequential")


def revive(value: Any, surely: bool = False) -> Any:
    """A layer, model or tensor in place of its config, alone or in a list; else what is given.

    ``surely``: it is one, wherever its class was written.
    """
    if isinstance(value, list):
        return [revive(item, surely) for item in value]
    if not isinstance(value, Mapping) or not {"class_name", "config"} <= set(value):
        return value
    module, name = str(value.get("module")), value["class_name"]
    if name in registry.VALUES:
        return registry.revived(value)
    ours = name in _MODELS if module == "keras" else module in ("keras.layers", "keras.models")
    users = registry.custom_objects()
    found = users.get(str(value.get("registered_name")), users.get(name))
    if surely or ours or hasattr(found, "call"):
        return importlib.import_module("distgrad.keras.layers").deserialize(value)
    return value
