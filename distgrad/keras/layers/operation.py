"""Operation: a function of ``keras.ops``, called on KerasTensors, as a node of a model.

The functions of ``keras.ops``, and Python's operators between KerasTensors by way of them, run as
they are. Only where one asks a KerasTensor for its value, which there is none of, the call becomes
a `NamedOperation`: tensors never pay for it. In configs these have the class names, modules and
settings that Keras 3 gives them. Users derive others from `Operation`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType
from distgrad.core.errors import NoValueError
from distgrad.core.tensor import Tensor
from distgrad.core.texts import are_texts, by_number
from distgrad.keras import registry
from distgrad.keras.layers import operation_shapes, symbolic
from distgrad.keras.layers.base import Layer
from distgrad.keras.registry import snake_case

_functions: dict[str, Callable[..., Any]] = {}  # of keras.ops, by the names of Keras's classes

# Classes whose names are not those of the functions, and modules other than keras.src.ops.numpy.
_CLASSES = {
    "abs": "Absolute",
    "hsv_to_rgb": "HSVToRGB",
    "rgb_to_grayscale": "RGBToGrayscale",
    "rgb_to_hsv": "RGBToHSV",
    "ssim": "SSIM",
    "allclose": "AllClose",
    "batch_normalization": "BatchNorm",
    "cdist": "CDist",
    "conj": "Conjugate",
    "ctc_decode": "CTCDecode",
    "ctc_loss": "CTCLoss",
    "fft": "FFT",
    "fft2": "FFT2",
    "hard_swish": "HardSilu",
    "ifft2": "IFFT2",
    "in_top_k": "InTopK",
    "irfft": "IRFFT",
    "isin": "IsIn",
    "istft": "ISTFT",
    "layer_normalization": "LayerNorm",
    "psnr": "PSNR",
    "re_lu": "ReLU",
    "rfft": "RFFT",
    "rms_normalization": "RMSNorm",
    "searchsorted": "SearchSorted",
    "stft": "STFT",
    "svd": "SVD",
    "swish": "Silu",
}
_IN_MATH = {
    *("CDist", "Erf", "Erfc", "Erfinv", "InTopK", "Logdet", "Logsumexp", "Rsqrt", "SegmentMax"),
    *("SegmentMin", "SegmentProd", "SegmentSum", "TopK", "ViewAsComplex", "ViewAsReal"),
}
_IN_NUMPY = {"Dot", "Einsum", "GetItem", "Inner", "Matmul", "Outer", "Slogdet", "Tensordot", "Vdot"}
_IN_ACTIVATIONS = {"Mish", "ReLU"}
_IN_NN = {"Polar", "PSNR"}
_MODULES = {
    **{
        "alignment": "nn",
        "core": "core",
        "factoring": "linalg",
        "linalg": "linalg",
        "nn": "nn",
        "regions": "nn",
    },
    **{"spectral": "math", "windows": "nn", "image": "image", "coordinates": "image"},
}

# Arguments that Keras hands to an operation's call; the others are settings of the operation.
_NAMES = """
x x1 x2 xs y a b q inputs kernel depthwise_kernel pointwise_kernel target output targets predictions
condition indices values updates start_indices query key value bias mask scale gamma beta mean
variance data segment_ids sorted_sequence bins fill_value constant_values start stop step rtol atol
operands variable images image1 image2 volumes coordinates translation
transform start_points end_points y array abs_ angle
"""
_TENSORS = frozenset(_NAMES.split())
_MORE_TENSORS = {
    "AssociativeScan": {"f", "elems"},
    "Average": {"weights"},
    "BatchNorm": {"offset"},
    "CTCDecode": {"sequence_lengths"},
    "CTCLoss": {"target_length", "output_length"},
    "Map": {"f"},
    "ScaleAndTranslate": {"output_shape"},
    "Scan": {"f", "init"},
    "Select": {"condlist", "choicelist", "default"},
    "Switch": {"index", "branches"},
    "VectorizedMap": {"elements"},
    "WhileLoop": {"loop_vars"},
}
# Arguments that are functions; in configs they have the names under which they are registered.
_FUNCTIONS = frozenset({"f", "function"})
_NO_TENSORS = {
    **{"AffineTransform": {"fill_value"}, "PerspectiveTransform": {"fill_value"}},
    **{"MapCoordinates": {"fill_value"}, "Resize": {"fill_value"}},
    "ElasticTransform": {"fill_value"},
    "AllClose": {"rtol", "atol"},
    "Histogram": {"bins"},
    "Squareplus": {"b"},
    "Trapezoid": {"x"},
    "Unique": {"fill_value"},
}
# Operations that texts may be given to, as well: those that put them in other places ...
_MOVING = {
    *("BroadcastTo", "Concatenate", "Copy", "ExpandDims", "Flip", "GetItem", "Hstack", "Moveaxis"),
    *("Ravel", "Repeat", "Reshape", "Roll", "Split", "Squeeze", "Stack", "Swapaxes", "Take"),
    *("Tile", "Transpose", "Unstack", "Vstack"),
}
_COMPARING = {"Equal", "NotEqual"}  # ... and those that compare them


class Operation(Layer):
    """A function of tensors, without weights, that is a node of a model and none of its layers.

    Subclasses define ``call``, and may define ``compute_output_spec``, which else tries it out.
    """

    casts_inputs = False
    takes_kinds = ("ragged", "sparse")
    _not_in_config = (*Layer._not_in_config, "trainable", "dtype")

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.built = True

    def _converted_input(self, value: Any, named: bool = False) -> Any:
        return value


class NamedOperation(Operation):
    """The function of ``keras.ops`` that Keras knows as this class, with these settings.

    Raises ValueError for a class that is not there, or a setting that the function does not take.
    """

    def __init__(
        self, operation: str, settings: Mapping[str, Any] | None = None, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        if name is None:
            self.name = snake_case(operation)
        self.operation = operation
        signature = inspect.signature(_function(operation))
        given = dict(settings or {})
        for unknown in [n for n in given if n not in signature.parameters]:
            if (value := given.pop(unknown)) not in (None, False):  # an option that is on
                raise ValueError(f"keras.ops: {operation} takes no {unknown}={value!r} here")
        self.settings = {n: _callable(v) if n in _FUNCTIONS else v for n, v in given.items()}
        tensors = _tensors(operation, signature)
        self._names = tuple(p.name for p in tensors)
        self._variadic = _rest(tensors)
        kinds = {"moves": _MOVING, "compares": _COMPARING}
        self._texts = next((kind for kind, names in kinds.items() if operation in names), "")

    def call(self, *args: Any, **kwargs: Any) -> Any:
        # (A tensor holds none: most calls are found out about at once.)
        known = self._texts and args and type(args[0]) is not Tensor
        if known and any(map(are_texts, tree.flatten(args))):
            moves = self._texts == "moves"
            return by_number(lambda numbers: self.call(*numbers, **kwargs), args, moves)
        function = _function(self.operation)
        given = {**self.settings, **kwargs}
        if not self._variadic:
            named = dict(zip(self._names, args, strict=False))
            for name in _FUNCTIONS.intersection(named):
                named[name] = _callable(named[name])
            return _ran(function, (), named | given)
        *first, rest = self._names
        given.update({**dict(zip(first, args, strict=False)), rest: args[len(first) :]})
        bound = inspect.BoundArguments(inspect.signature(function), given)
        return _ran(function, bound.args, bound.kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        composite = any(tensor.composite for tensor in symbolic.symbols(args))
        rule = None if composite else operation_shapes.told
        found = rule and rule(self.operation, {**self.settings, **kwargs}, args)
        if found is not None:
            return found
        try:
            return symbolic.infer(self, args, kwargs, _trial)
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            try:  # where parts of an axis of unknown size are asked for, it must have some
                return symbolic.infer(self, args, kwargs, _trial, symbolic.DIVISIBLE_SIZES)
            except (ValueError, TypeError, IndexError, ArithmeticError):
                raise self._explained(error, args, kwargs) from error

    def _explained(self, error: Exception, args: tuple, kwargs: Mapping[str, Any]) -> Exception:
        leaves = tree.flatten((args, dict(kwargs)))
        shapes = [str(tuple(x.shape)) for x in leaves if hasattr(x, "shape")]
        settings = [f"{name}={value!r}" for name, value in self.settings.items()]
        text = f"keras.ops, {self.operation} of shapes {', '.join([*shapes, *settings])}: {error}"
        return TypeError(text) if isinstance(error, TypeError) else ValueError(text)

    def _converted_input(self, value: Any, named: bool = False) -> Any:
        known = isinstance(value, np.ndarray) and not are_texts(value)
        return as_tensor(value) if known else value

    def entry(self) -> dict[str, Any]:
        """Class, module and settings, as Keras writes them."""
        home = _function(self.operation).__module__.rpartition(".")[2]
        module = _MODULES.get(home, "numpy")
        module = "math" if self.operation in _IN_MATH else module
        module = "nn" if self.operation in _IN_NN else module
        module = "numpy" if self.operation in _IN_NUMPY else module
        module = "core" if self.operation == "AssociativeScan" else module
        module = f"ops.{module}"
        if self.operation in _IN_ACTIVATIONS:
            module = "activations.activations"
        settings = {name: self._plain(value) for name, value in self.settings.items()}
        return {
            "module": f"keras.src.{module}",
            "class_name": self.operation,
            "config": {"name": self.name, **settings},
            "registered_name": self.operation,
        }

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> NamedOperation:
        """The operation of what ``entry`` gave, here or in Keras."""
        settings = dict(entry["config"])
        name = settings.pop("name", None)
        return cls(entry["class_name"], settings, name)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, (DType, np.dtype)):
            return value.name
        if isinstance(value, type) and issubclass(value, np.generic):
            return np.dtype(value).name
        if inspect.isfunction(value):
            known = {"config": registry.registered_name(value) or value.__name__}
            return {
                "module": "builtins", "class_name": "function", **known,
                "registered_name": "function",
            }  # fmt: skip
        return np.asarray(value).tolist() if isinstance(value, Tensor) else registry.plain(value)


def operation(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of ``keras.ops`` as it is, and recorded where it is called on KerasTensors."""
    known = _class_of(name)
    _functions.setdefault(known, function)

    parameters = inspect.signature(function).parameters.values()
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    make = _callers.get(len(parameters)) if plain else None
    call: Any = functools.update_wrapper((make or _any)(function, known), function)
    if make:  # with the names and defaults of the function's own arguments
        call.__code__ = call.__code__.replace(co_varnames=tuple(p.name for p in parameters))
        call.__defaults__ = function.__defaults__
    call.__module__ = "distgrad.keras.ops"  # where pickles are to look for it
    call.__name__ = call.__qualname__ = name
    return call


def called(name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The node that a call of this function on KerasTensors is."""
    importlib.import_module("distgrad.keras.ops")  # which knows them all
    return _recorded(_class_of(name), args, kwargs)


def _class_of(name: str) -> str:
    return _CLASSES.get(name) or "".join(part.capitalize() for part in name.split("_"))


# The same function by the number of its arguments: handing on ``*args, **kwargs`` takes longer.


def _any(function: Callable[..., Any], known: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except NoValueError:
            pass
        except CompositeError:
            return _of_composites(function, args, kwargs)
        return _recorded(known, args, kwargs)

    return call


def _one(function: Callable[..., Any], known: str) -> Callable[..., Any]:
    def call(a: Any) -> Any:
        try:
            return function(a)
        except NoValueError:
            pass
        except CompositeError:
            return _of_composites(function, (a,), {})
        return _recorded(known, (a,), {})

    return call


def _two(function: Callable[..., Any], known: str) -> Callable[..., Any]:
    def call(a: Any, b: Any) -> Any:
        try:
            return function(a, b)
        except NoValueError:
            pass
        except CompositeError:
            return _of_composites(function, (a, b), {})
        return _recorded(known, (a, b), {})

    return call


def _three(function: Callable[..., Any], known: str) -> Callable[..., Any]:
    def call(a: Any, b: Any, c: Any) -> Any:
        try:
            return function(a, b, c)
        except NoValueError:
            pass
        except CompositeError:
            return _of_composites(function, (a, b, c), {})
        return _recorded(known, (a, b, c), {})

    return call


def _four(function: Callable[..., Any], known: str) -> Callable[..., Any]:
    def call(a: Any, b: Any, c: Any, d: Any) -> Any:
        try:
            return function(a, b, c, d)
        except NoValueError:
            pass
        except CompositeError:
            return _of_composites(function, (a, b, c, d), {})
        return _recorded(known, (a, b, c, d), {})

    return call


_callers = {1: _one, 2: _two, 3: _three, 4: _four}


def _of_composites(function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a function does of composite tensors, where its dense form has raised CompositeError."""
    for kind in ("ragged", "sparse"):
        importlib.import_module(f"distgrad.keras.ops.{kind}")
    return otherwise(function, args, kwargs)


def _ran(function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except CompositeError:
        return _of_composites(function, args, kwargs)


def _function(known: str) -> Callable[..., Any]:
    if known not in _functions:  # it may be one that is loaded when it is asked for
        ops = importlib.import_module("distgrad.keras.ops")
        for name in (*ops.__all__, "image"):
            getattr(ops, name)
    if known not in _functions:
        raise ValueError(f"keras.ops has no operation {known!r} here")
    return _functions[known]


def _callable(value: Any) -> Any:
    """The registered function that a config names; a function as it is."""
    name = value.get("config") if isinstance(value, Mapping) else value
    return registry.get_registered_object(name) if isinstance(name, str) else value


def _tensors(known: str, signature: inspect.Signature) -> list[inspect.Parameter]:
    names = (_TENSORS | _MORE_TENSORS.get(known, set())) - _NO_TENSORS.get(known, set())
    return [p for p in signature.parameters.values() if p.name in names]


def _rest(tensors: list[inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in tensors)


def _recorded(known: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The call of an operation on KerasTensors, as Keras makes it of the call of a function."""
    if not symbolic.any_symbolic(args, kwargs):
        raise NoValueError(f"keras.ops, {known}: a KerasTensor lies where none can be taken")
    signature = inspect.signature(_function(known))
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = {n: v for n, v in bound.arguments.items() if n != "kwargs"}
    tensors = _tensors(known, signature)
    called = [given.pop(p.name) for p in tensors]
    if _rest(tensors):
        called = [*called[:-1], *called[-1]]
    while called and called[-1] is None:
        called.pop()
    settings = {n: v for n, v in given.items() if not symbolic.symbols(v)}
    rest = {n: v for n, v in given.items() if n not in settings}
    return NamedOperation(known, settings)(*called, **rest)


def _trial(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """Zeros, of floats with ones on the diagonals: matrices that can be inverted."""
    array = np.zeros(shape, dtype)
    if len(shape) > 1 and dtype.kind in "fc":
        array[...] = np.eye(*shape[-2:], dtype=dtype)
    return array
