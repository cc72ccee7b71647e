"""What a loss is: one value per sample, and their reduction over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.keras import mixed_precision
from distgrad.keras.backend import floatx
from distgrad.keras.registry import Configured, snake_case
from distgrad.ops.casting import cast
from distgrad.ops.division import divide_no_nan
from distgrad.ops.layout import broadcast_to
from distgrad.ops.logic import logical_and
from distgrad.ops.reduce import reduce_mean, reduce_sum
from distgrad.ops.shape import expand_dims, squeeze

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)
_FLOAT32 = np.dtype(np.float32)
_MEANS = ("sum_over_batch_size", "mean")


class Reduction:
    """Keras 2's names of reductions, which TensorFlow still has: each is the text of Keras 3."""

    AUTO = SUM_OVER_BATCH_SIZE = "sum_over_batch_size"
    SUM = "sum"
    NONE = "none"

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Every one of them."""
        return cls.SUM_OVER_BATCH_SIZE, cls.SUM, cls.NONE


class Loss(Configured):
    """Base of all losses: ``call(y_true, y_pred)`` gives one value per sample.

    ``reduction``: ``sum_over_batch_size`` or ``mean`` (weighted sum over number of values),
    ``mean_with_sample_weight`` (weighted sum over sum of weights), ``sum``, or None. Predictions
    and targets are cast to ``dtype``, a dtype or policy, of which float32 is the least; by default
    to ``floatx``, but for wider predictions, which keep their digits (Keras casts them, too).
    Raises ValueError for another reduction.
    """

    casts_targets = True
    masks_values = False  # whether ``call`` masks what it gives

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        if reduction == "auto":  # Keras 2's text, in losses of one's own
            reduction = Reduction.AUTO
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, not {reduction!r}")
        self.name = name or snake_case(type(self).__name__)
        self.reduction = None if reduction == "none" else reduction
        self.dtype = own_dtype(dtype)
        self._numpy_dtype = as_dtype(self.dtype).numpy_dtype
        self._keeps_wider = dtype is None

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments but for ``dtype``, as Keras has it."""
        return {name: value for name, value in super().get_config().items() if name != "dtype"}

    def mask(self, y_true: Tensor) -> Tensor | None:
        """Which values count, as bools; None for all of them."""
        return None

    def _in_one(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """The mean of what ``call`` gives as one operation, for eager steps, where there is one."""
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        return self._value_and_count(y_true, y_pred, sample_weight)[0]

    def counted(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Tensor, Any]:
        """The loss, and what its mean is over: by that the losses of parts of a batch weigh."""
        if type(self).__call__ is not Loss.__call__:  # a user's, which reduces by itself
            value = as_tensor(self(y_true, y_pred, sample_weight=sample_weight))
            return value, float(value._data.size)
        return self._value_and_count(y_true, y_pred, sample_weight)

    def _as_prediction(self, y_pred: Tensor) -> Tensor:
        own = y_pred._data.dtype
        if self._keeps_wider and is_floating(own) and own.itemsize > self._numpy_dtype.itemsize:
            return y_pred
        return _cast_with_logits(y_pred, self._numpy_dtype)

    def _value_and_count(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Tensor, Any]:
        if _is_nest(y_pred) or _is_nest(y_true):
            return self._of_nests(y_true, y_pred, sample_weight)
        prediction, target = self._as_prediction(as_tensor(y_pred)), as_tensor(y_true)
        if self.casts_targets:
            target = cast(target, prediction._data.dtype)
        if sample_weight is None and self.reduction in _MEANS and not recording.in_parts():
            masked = getattr(y_pred, "_keras_mask", None) is not None
            whole = None if masked else self._in_one(target, prediction)
            if whole is not None:
                return whole, float(target._data.size)
        values, mask = self._values_of_samples(target, prediction, y_pred)
        value = reduced(values, sample_weight, mask, self.reduction)
        return value, _count(values, sample_weight, mask, self.reduction)

    def _of_nests(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Tensor, Any]:
        """The loss of lists or dicts of tensors, which ``call`` is given leaf by leaf."""
        leaves = [self._as_prediction(as_tensor(leaf)) for leaf in tree.flatten(y_pred)]
        targets = [as_tensor(leaf) for leaf in tree.flatten(y_true)]
        if self.casts_targets:
            targets = [cast(leaf, leaves[0]._data.dtype) for leaf in targets]
        target = tree.pack_sequence_as(y_true, targets)
        prediction = tree.pack_sequence_as(y_pred, leaves)
        values = as_tensor(self.call(target, prediction))
        value = reduced(values, sample_weight, None, self.reduction)
        return value, _count(values, sample_weight, None, self.reduction)

    def _values_of_samples(
        self, target: Tensor, prediction: Tensor, y_pred: Any
    ) -> tuple[Tensor, Tensor | None]:
        values = as_tensor(self.call(target, prediction))
        mask = self.mask(target)
        for other in (getattr(x, "_keras_mask", None) for x in (y_pred, values)):
            if mask is not None and other is not None:
                mask = logical_and(*same_rank(mask, other))
            mask = other if mask is None else mask
        return values, mask


class PlainLoss(Loss):
    """A loss that is a function of targets and predictions alone."""

    fn: Callable[[Any, Any], Tensor]

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return type(self).fn(y_true, y_pred)


class FunctionLoss(Loss):
    """A user's function of (y_true, y_pred) as a loss, which is given both in `same_rank`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", "loss"), reduction)
        self.fn = fn

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return self.fn(*same_rank(y_true, y_pred))


def _is_nest(value: Any) -> bool:
    """Whether it is a dict, or a list or tuple of tensors or arrays: several of them, not one."""
    found = tree.sort(value)
    if found == "sequence":
        return any(isinstance(leaf, (Tensor, np.ndarray)) for leaf in tree.flatten(value))
    return found != ""


def reduced(values: Tensor, weight: Any, mask: Tensor | None, reduction: str | None) -> Tensor:
    """The values times their weights, reduced as Keras does."""
    dtype = values._data.dtype
    weight = None if weight is None else cast(as_tensor(weight), dtype)
    if mask is not None:
        counted = cast(mask, dtype)
        if reduction in _MEANS:  # the mean is one over the values that count
            counted = counted * divide_no_nan(float(mask._data.size), reduce_sum(counted))
        if weight is not None:
            counted, weight = same_rank(counted, weight)
        weight = counted if weight is None else weight * counted
    if weight is not None:
        values, weight = same_rank(values, weight)
        values = values * weight
    if reduction is None or not values._data.ndim:
        return values
    if reduction == "sum" or not values._data.size:
        return reduce_sum(values)
    if reduction == "mean_with_sample_weight" and weight is not None:
        return divide_no_nan(reduce_sum(values), reduce_sum(weight))
    return reduce_mean(values)


def _count(values: Tensor, weight: Any, mask: Tensor | None, reduction: str | None) -> Any:
    """What the mean that ``reduced`` takes is over: a number, or a scalar tensor."""
    if reduction == "mean_with_sample_weight" and weight is not None:
        with recording.paused():
            return reduced(values * 0 + 1, weight, mask, "sum")
    if mask is not None and reduction in _MEANS:
        with recording.paused():
            return reduce_sum(cast(mask, "float64"))
    return float(values._data.size)


def floating(value: Any) -> Tensor:
    """Predictions as a floating-point tensor: integers and bools become float32."""
    tensor = as_tensor(value)
    return tensor if is_floating(tensor._data.dtype) else cast(tensor, "float32")


def own_dtype(dtype: Any) -> str:
    """The name of the dtype of a loss or metric: of a dtype, a policy, or None."""
    if dtype is None:  # 16 bits, which a policy may be of, are too few for sums
        return "float64" if floatx() == "float64" else "float32"
    return mixed_precision.get(dtype).compute_dtype


def in_float32(tensor: Tensor) -> Tensor:
    """Floats of 16 bits as float32, and the logits that they come from; anything else as it is."""
    if not is_floating(tensor._data.dtype) or tensor._data.dtype.itemsize > 2:
        return tensor
    return _cast_with_logits(tensor, _FLOAT32)


def _cast_with_logits(tensor: Tensor, dtype: Any) -> Tensor:
    """A tensor of ``dtype``, and so the logits that it comes from."""
    if tensor._data.dtype == dtype:
        return tensor
    found = cast(tensor, dtype)
    logits = tensor._logits
    if logits is not None:
        activation, x = logits
        found._logits = activation, cast(x, dtype)
    return found


def same_rank(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors, one with a last axis of size 1 more or less where its rank is off by one.

    A vector beside a matrix of one column becomes one, too, as in Keras.
    """
    a, b = as_tensor(a), as_tensor(b)
    ranks = a._data.ndim, b._data.ndim
    if ranks[0] == ranks[1] + 1 and a._data.shape[-1] == 1:
        return (a, expand_dims(b, -1)) if ranks[1] == 1 else (squeeze(a, -1), b)
    if ranks[1] == ranks[0] + 1 and b._data.shape[-1] == 1:
        return (expand_dims(a, -1), b) if ranks[0] == 1 else (a, squeeze(b, -1))
    return a, b


def pair(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Targets and predictions of one floating dtype and one shape.

    A scalar fits any shape, and a single target those of one sample, as in Keras. Raises
    InvalidArgumentError for other shapes, also for those that would broadcast.
    """
    prediction = floating(y_pred)
    target = cast(as_tensor(y_true, like=prediction._data.dtype), prediction._data.dtype)
    target, prediction = same_rank(target, prediction)
    shapes = target._data.shape, prediction._data.shape
    if shapes[0] == shapes[1] or () in shapes:
        return target, prediction
    if shapes[0] == (1,) and shapes[1][0] == 1:
        return broadcast_to(target, shapes[1]), prediction
    raise InvalidArgumentError(f"targets of shape {shapes[0]}, predictions of {shapes[1]}")
