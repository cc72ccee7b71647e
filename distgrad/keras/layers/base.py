"""Layer: a callable that makes its weights at the first call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating, kind_of
from distgrad.core.errors import NoCallError
from distgrad.core.tensor import Tensor
from distgrad.core.texts import Texts, as_texts, holds_texts
from distgrad.core.undone import kept
from distgrad.keras import constraints, initializers, mixed_precision, regularizers
from distgrad.keras.layers import remat, shaping, symbolic
from distgrad.keras.layers.arguments import ARRAYS, as_array, of_values, refuse_numbers
from distgrad.keras.layers.calling import Losses, calls, quiet, within
from distgrad.keras.layers.describing import Described, as_shape, first_shape
from distgrad.keras.layers.input_spec import check_inputs
from distgrad.keras.layers.keeping import Kept
from distgrad.keras.layers.losing import Losing
from distgrad.keras.layers.masking import Masked, carry_mask, mask_of
from distgrad.keras.layers.tracking import Tracked, number
from distgrad.keras.layers.weight import Weight
from distgrad.keras.named_first import named_first
from distgrad.keras.registry import is_ours, not_begun, snake_case
from distgrad.ops.casting import cast
from distgrad.training import objects

__all__ = ["Layer", "Weight"]

_FLOAT32 = np.dtype(np.float32)
_NAMES_OF_FIRST = ("inputs", "data", "sequences", "sequence")


class Layer(Tracked, Masked, Described, Losing, Kept):
    """Base of all layers and models.

    Subclasses define ``call(self, x)``, with ``training=False`` or ``mask=None`` among its
    arguments if they matter, and may define ``build(self, input_shape)`` to make weights with
    ``add_weight``. Layers and variables assigned to attributes, also in lists, tuples and dicts,
    are tracked. ``dtype`` is an element type or the name of a policy (``mixed_precision``).

    A layer with ``casts_inputs = False`` gets its inputs as they are, one with True gets all
    numbers in its compute dtype. Left at None, floats are cast, and integers only where a layer of
    ours has weights of its own. One with ``autocast=False`` gets them as they are, and reads its
    weights as they are kept. Raises ValueError for an unknown keyword.
    """

    casts_inputs: bool | None = None
    one_tensor = False  # whether a list of tensors is refused
    of_each_value = False  # whether it makes something of each number by itself: ragged ones, too
    of_each_row = False  # or of each row along its ``axis``, if they are all of one length
    takes_kinds: tuple[str, ...] = ()  # of composite tensors, "ragged" and "sparse", in ``call``
    meets = False  # whether its calls in training add up numbers with other shards
    input_spec: Any = None  # InputSpecs that the first argument of a call is checked against
    stateful: bool = False
    supports_jit = True  # a layer of one's own may say that it does not: it changes nothing
    takes_texts = False  # arrays of them, as they are: a user's own layers see to it themselves
    _call_parameters: tuple[str, ...] | None = None  # of call, once __init__ has run
    _remat_mode: remat.RematMode | None = None  # of the scope in which it was made
    _output_size: int | None = None
    _building = False
    _makes_masks = False  # whether its outputs may have masks that its inputs have not

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        activity_regularizer: Any = None,
        input_shape: tuple[int | None, ...] | None = None,
        **legacy: Any,
    ) -> None:
        if name is not None and (not isinstance(name, str) or "/" in name):
            raise ValueError(f"the name of a layer is a text without '/', not {name!r}")
        self._given_name = name
        self._creation_number = number()  # names count up in the order in which layers were made
        self.name = name or snake_case(type(self).__name__)
        self._dtype_policy = mixed_precision.get(dtype)
        self.autocast = bool(autocast)
        self.built = False
        self._trainable = bool(trainable)
        self._own_weights: list[Weight] = []
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self._input_shape = first_shape(self, input_shape, legacy)
        self._metrics: list[Any] = []  # where libraries put further ones, as Keras keeps its own
        self._added_loss_functions: list[Callable[[], Any]] = []
        self._inbound_nodes: list[symbolic.Node] = []
        self._build_shapes_dict: Any = None
        self._remat_mode = remat.current()
        parameters = inspect.signature(self.call).parameters
        self._call_parameters = tuple(parameters)
        places = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        self._first_argument = places[0] if places else None  # which may be given by position
        self._takes_training = "training" in parameters
        default = parameters["training"].default if self._takes_training else None
        self._training_by_default = False if default is inspect.Parameter.empty else default
        self._mask_for = {
            name: "" if name == "mask" else name.removesuffix("_mask")
            for name in parameters
            if name == "mask" or (name.endswith("_mask") and name[:-5] in parameters)
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inbound_nodes": []}  # a copy of a layer lies in no model

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._makes_masks = cls.compute_mask is not Masked.compute_mask
        if "build" in cls.__dict__:
            cls.build = _marked_built(cls.build)  # type: ignore[method-assign]

    # Dtypes

    @property
    def dtype_policy(self) -> mixed_precision.Policy:
        """In which dtypes the layer computes and keeps its weights; a name or a dtype sets it."""
        return self._dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value: Any) -> None:
        self._dtype_policy = mixed_precision.get(value)

    @property
    def dtype(self) -> str:
        """In which dtype the weights are kept."""
        return self._dtype_policy.variable_dtype

    variable_dtype = dtype

    @property
    def compute_dtype(self) -> str:
        """In which dtype the layer computes."""
        return self._dtype_policy.compute_dtype

    input_dtype = compute_dtype

    @property
    def path(self) -> str:
        """The names of the models it lies in, and its own."""
        return self.__dict__.get("_layer_path", self.name)

    # What a subclass defines

    def build(self, input_shape: Any) -> None:
        """Makes the weights for inputs of this shape; the base class has none."""
        self._build_shapes_dict = input_shape
        self._finish_building()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the outputs. Raises NoCallError: every layer defines its own."""
        raise NoCallError(
            f"layer {self.name!r} ({type(self).__name__}) does not have a `call` method of its own"
        )

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shape of the outputs, None for axes that may vary, for inputs of this shape."""
        shapes, options = shaping.by_position(self._call_parameters or (), args, kwargs)
        outputs = self._tried_out(tuple(map(symbolic.of_shapes, shapes)), options)
        return tree.map_structure(lambda tensor: tensor.shape, outputs)

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """``compute_output_spec``, under the name that Keras calls it by."""
        return self.compute_output_spec(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The KerasTensors that the layer makes of these KerasTensors."""
        try:
            return self._tried_out(args, kwargs)
        except Exception:
            if is_ours(type(self).compute_output_shape):
                raise
            return shaping.stated(self, args, kwargs)  # as Keras does, which tries nothing out

    def _tried_out(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        found = shaping.told(self, args, kwargs)
        if found is not None:
            return found
        # ``build`` is to see the axes that are None, not the sizes with which ``call`` is tried.
        if self.built or type(self).build is Layer.build or type(self)._build_for is not _BUILD_FOR:
            return symbolic.infer(self, args, kwargs)
        with recording.paused(), quiet(self):
            self._build_for(args, kwargs)
        found = symbolic.infer(self, args, kwargs)
        self._finish_building()
        return found

    def _told_shape(self, shape: Any) -> Any:
        """The shape of the output for floats of this shape, or of these; None: try it out."""
        return None

    def some_text(self, words: int) -> str:
        """One that it can be tried out with, of so many words: shapes may depend on that."""
        return " ".join(["a"] * words)

    # The call

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        if self._call_parameters is None:
            raise not_begun(self)
        if not args:
            args, kwargs = self._first_by_name(kwargs)
        if self.input_spec is not None and not calls.trial:
            check_inputs(self.input_spec, args[0] if args else None, self.name)
        # Most layers are given a tensor, and nothing else.
        alone = len(args) == 1 and not kwargs and type(args[0]) is Tensor
        first: Any = None if alone or not args else args[0]
        composite = isinstance(first, Composite)
        if composite and first.kind not in self.takes_kinds and is_ours(type(self).call):
            return of_values(self, first, training)
        nested = not alone and self.one_tensor and bool(args) and tree.is_nested(args[0])
        if nested and is_ours(type(self).call):
            if not symbolic.symbols(args[0]):
                refuse_numbers(self, args[0])
            raise ValueError(f"layer {self.name!r} takes one tensor, not a nest: {args[0]!r}")
        if not alone and symbolic.any_symbolic(args, kwargs):
            if training is not None:  # also for the layers below one that does not take it
                kwargs["training"] = training
            return symbolic.record(self, args, kwargs)
        new = not self.built
        if new:
            args = tree.map_structure(as_array, args)
            self._build_for(args, kwargs)
        inputs = tuple([self._converted_input(value) for value in args])
        for name, value in kwargs.items():
            kwargs[name] = self._converted_input(value, named=True)
        outer_training = calls.training
        if training is None:
            training = outer_training
        by_name = self._takes_training and len(args) <= (
            at := self._call_parameters.index("training")
        )
        if self._takes_training and not by_name:
            training = args[at]
        elif by_name and training is None:  # None leaves it to the layers below
            training = self._training_by_default
            if calls.trial and is_ours(type(self).call):
                training = False  # outputs have the same shape, and nothing is drawn
        if training is not None:
            training = bool(training)
        if by_name:
            kwargs["training"] = training
        if alone:
            first_mask = getattr(args[0], "_keras_mask", None)
        else:
            first_mask = mask_of(args[0]) if args else None
        if self._mask_for:
            self._fill_in_masks(args, kwargs)
        if Losses.used and calls.depth == 0:
            self._forget_losses()
        calls.training = training
        calls.depth += 1
        try:
            if self._remat_mode is None:
                outputs = self._run_call(inputs, kwargs)
            else:
                again = functools.partial(within, training)
                outputs = remat.call(self, self._run_call, inputs, kwargs, again)
        finally:
            calls.depth -= 1
            calls.training = outer_training
        if new:  # layers below may have made theirs just now
            self._finish_building()
        if self.activity_regularizer is not None:
            self._regularize(outputs)
        given = kwargs.get("mask")
        if first_mask is not None or given is not None or self._makes_masks:
            self._pass_on_mask(inputs, outputs, given, first_mask)
        return outputs

    def _first_by_name(self, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Arguments by position and by name: the first under its name, or that it has in Keras."""
        if self._first_argument in kwargs:
            return (kwargs.pop(self._first_argument),), kwargs
        for name in _NAMES_OF_FIRST if is_ours(type(self).call) else ():
            if name in kwargs and name not in (self._call_parameters or ()):
                return (kwargs[name],), {n: v for n, v in kwargs.items() if n != name}
        return (), kwargs

    def _run_call(self, inputs: tuple, kwargs: dict[str, Any]) -> Any:
        policy = self._dtype_policy
        if policy.compute_dtype == policy.variable_dtype and not mixed_precision.scopes:
            return self.call(*inputs, **kwargs)
        mixed = self.autocast and policy.compute_dtype != policy.variable_dtype
        with mixed_precision.autocast(policy.compute_dtype if mixed else None):
            return self.call(*inputs, **kwargs)

    def _build_for(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Makes the weights, at the first call."""
        if not args and not kwargs:
            return
        if args and args[0] is None and is_ours(type(self)):
            raise ValueError(f"layer {self.name!r} takes tensors or arrays, not None")
        for value in args:
            if isinstance(value, (list, tuple)) and not symbolic.symbols(value):
                refuse_numbers(self, value)
        first, named = shaping.shapes_for(self.build, self._call_parameters or (), args, kwargs)
        with recording.paused():
            if named:
                self.build(**named)
            else:
                if type(self).build is not Layer.build:
                    self.build(*[first] if shaping.takes_any(self.build) else [])
                self._build_shapes_dict = first  # also of those that have nothing to build
        if calls.trial:  # made for inputs of any batch
            self._build_shapes_dict = symbolic.of_any_batch(self._build_shapes_dict)

    def _build_once(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Makes the weights for KerasTensors, without a call."""
        with quiet(self):
            self._build_for(args, kwargs)
        self._finish_building()

    def _finish_building(self) -> None:
        self.built = True
        self._name_weights()
        objects.built(self)

    def _converted_input(self, value: Any, named: bool = False) -> Any:
        """Arrays and tensors of numbers in the layer's dtype; those in nests one by one."""
        computes = self._dtype_policy.compute_dtype
        if type(value) is Tensor and value._data.dtype is _FLOAT32 and computes == "float32":
            return value  # nearly always
        if isinstance(value, ARRAYS):
            if isinstance(value, np.ndarray) and value.dtype.kind in "OSU" and holds_texts(value):
                if is_ours(type(self).call) and not self.takes_texts:
                    raise ValueError(
                        f"layer {self.name!r} takes numbers, not texts: make numbers of them "
                        "before it, with StringLookup, TextVectorization or Hashing"
                    )
                return as_texts(value).view(Texts)
            tensor = as_tensor(value)
            wanted = self._wanted(tensor._data.dtype, named)
            return tensor if wanted is None else carry_mask(tensor, cast(tensor, wanted))
        if isinstance(value, (list, tuple, Mapping)):
            if not named:
                refuse_numbers(self, value)
            return tree.map_structure(lambda v: self._converted_input(v, named), value)
        if isinstance(value, Composite):
            wanted = self._wanted(value.dtype.numpy_dtype, named)
            return value if wanted is None else cast(value, wanted)
        array = as_array(value)
        return value if array is value else self._converted_input(array, named)

    def _wanted(self, known: np.dtype, named: bool) -> np.dtype | None:
        """The dtype that an input of a known one is cast to; None where it stays."""
        kind = kind_of(known)
        if self.casts_inputs is False or not self.autocast or kind not in "fiub":
            return None
        if kind != "f" and (named or not (self.casts_inputs or self._multiplies())):
            return None
        wanted = as_dtype(self._dtype_policy.compute_dtype).numpy_dtype
        return wanted if known != wanted and is_floating(wanted) else None

    def _multiplies(self) -> bool:
        """Whether whole numbers meet weights, of their dtype, in a call: users' may be indices."""
        return bool(self._own_weights) and is_ours(type(self).call)

    # Weights

    @named_first
    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str | None = None,
        name: str | None = None,
    ) -> Weight:
        """Makes a weight of this layer: Glorot-uniform floats, or zeros of another dtype.

        Raises ValueError for a size of None, and in a call of the layer after it is built: it would
        make one each time. RuntimeError before ``super().__init__()``.
        """
        if self._call_parameters is None:
            raise not_begun(self)
        if self.built and calls.depth and not self._building:
            raise ValueError(
                f"You cannot add new elements of state to the layer {self.name!r}, which is built "
                f"already (add_weight, name={name!r}): call add_weight in __init__ or in build"
            )
        wanted = as_dtype(dtype or self.variable_dtype).numpy_dtype
        if initializer is None:
            initializer = "glorot_uniform" if is_floating(wanted) else "zeros"
        make = initializers.get(initializer)
        dims = () if shape is None else as_shape(shape)
        if None in dims:
            raise ValueError(
                f"{self.name!r}: a weight of shape {dims}: all its sizes must be known"
            )
        weight = Weight(
            make(dims, dtype=wanted),
            trainable=trainable,
            name=name,
            dtype=wanted,
            autocast=autocast,
            regularizer=regularizers.get(regularizer),
            constraint=constraints.get(constraint),
        )
        if not self._trainable:
            weight.trainable = False  # until the layer's setting changes
        self._own_weights.append(weight)
        return weight

    @named_first
    def add_variable(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
    ) -> Weight:
        """``add_weight``, under Keras's older name."""
        options = (regularizer, constraint, None, name)
        return self.add_weight(shape, initializer, dtype, trainable, autocast, *options)

    # Of layers that have been called on KerasTensors

    @property
    def input(self) -> Any:
        """The KerasTensors of the first symbolic call. Raises AttributeError before it."""
        return tree.copied(symbolic.only_node(self).inputs)

    @property
    def output(self) -> Any:
        """The KerasTensors that the first symbolic call gave."""
        return tree.copied(symbolic.only_node(self).outputs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


_BUILD_FOR = Layer._build_for  # models have their own


def _marked_built(build: Callable[..., None]) -> Callable[..., None]:
    """``build`` of a subclass, after which the layer is built: users call it themselves, too."""

    @functools.wraps(build)
    def marked(self: Layer, *args: Any, **kwargs: Any) -> None:
        outer, self._building = self._building, True
        try:
            with kept():
                build(self, *args, **kwargs)
        finally:
            self._building = outer
        self._build_shapes_dict = kwargs or (args[0] if args else None)
        self._finish_building()

    return marked
