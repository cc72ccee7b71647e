"""Normalisation of activations: over the batch, over the features of a sample, over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from distgrad.core import recording
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras import constraints, initializers, regularizers
from distgrad.keras.layers import renormalization
from distgrad.keras.layers.base import Layer, Weight
from distgrad.keras.layers.calling import trying_out
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast, ones_like, stop_gradient
from distgrad.ops.clipping import maximum
from distgrad.ops.logic import where
from distgrad.ops.normalization import batch_normalization, layer_norm, observed_moments
from distgrad.ops.powers import rsqrt, sqrt
from distgrad.ops.reduce import reduce_mean, reduce_sum
from distgrad.ops.shape import expand_dims, reshape
from distgrad.ops.statistics import moments
from distgrad.training import meeting
from distgrad.training.meeting import over_shards


class _Scaled(Layer):
    """What the layers below share: ``gamma`` and ``beta``, and statistics in float32 or better."""

    one_tensor = True

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.gamma: Weight | None = None
        self.beta: Weight | None = None

    def _add_scale(self, shape: tuple[int, ...]) -> None:
        if self.scale:
            self.gamma = self.add_weight(
                shape,
                self.gamma_initializer,
                name="gamma",
                autocast=False,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = self.add_weight(
                shape,
                self.beta_initializer,
                name="beta",
                autocast=False,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )

    def _told_same(self, shape: Any, axes: Sequence[int]) -> Any:
        """The shape, if the weights are of its sizes along these axes."""
        rank = len(shape)
        if any(not -rank <= axis < rank or shape[axis] is None for axis in axes):
            return None
        sizes = tuple(shape[axis] for axis in sorted(axis % rank for axis in axes))
        return shape if all(tuple(w.shape) == sizes for w in self._own_weights) else None

    def _scale_and_offset(self, x: Tensor, shape: Sequence[int]) -> tuple[Any, Any]:
        """``gamma`` and ``beta`` in the dtype of ``x`` and in a shape that broadcasts with it."""

        def shaped(weight: Weight | None) -> Tensor | None:
            return None if weight is None else reshape(cast(weight, x.dtype), shape)

        return shaped(self.gamma), shaped(self.beta)


class BatchNormalization(_Scaled):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, per entry of ``axis``.

    In training, mean and variance are those of the batch (of a virtual shard of it, in a training
    step of several, unless ``synchronized``) without what ``mask`` leaves out, and the moving
    averages go by ``1 - momentum`` towards them; otherwise, and in a layer that is not
    ``trainable``, they are the moving averages. The variance is the biased one. A step of several
    shards with a ``synchronized`` layer is eager. With ``renorm``, training normalises by running
    statistics of ``renorm_momentum``: by ``(y * r + d)``, with ``r`` and ``d`` kept within
    ``renorm_clipping``. Raises ValueError for an axis out of range, bounds that are none, and a
    mask that does not fit. Ioffe and Szegedy, 2015; Ioffe, 2017.
    """

    of_each_row = True

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.renorm = renorm
        self.renorm_clipping = (
            renormalization.bounds(renorm_clipping) if renorm else renorm_clipping
        )
        self.renorm_momentum = renorm_momentum
        self.synchronized = synchronized

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = _sizes(self, input_shape, [self.axis])
        self._add_scale(shape)
        self.moving_mean = self.add_weight(
            shape,
            self.moving_mean_initializer,
            trainable=False,
            name="moving_mean",
            autocast=False,
        )
        self.moving_variance = self.add_weight(
            shape,
            self.moving_variance_initializer,
            trainable=False,
            name="moving_variance",
            autocast=False,
        )
        if self.renorm:
            made = renormalization.add_weights(self, shape)
            self.moving_stddev, self.renorm_mean, self.renorm_stddev = made

    def _told_shape(self, shape: Any) -> Any:
        return self._told_same(shape, [self.axis])

    def call(self, x: Tensor, training: bool = False, mask: Any = None) -> Tensor:
        wide = _wide(x)
        rank = len(wide.shape)
        axis = self.axis % rank
        others = [a for a in range(rank) if a != axis]
        along = [wide.shape[axis] if a == axis else 1 for a in range(rank)]
        gamma, beta = self._scale_and_offset(wide, along)
        if not (training and self.trainable):
            mean, variance = (
                reshape(cast(weight, wide.dtype), along)
                for weight in (self.moving_mean, self.moving_variance)
            )
            y = batch_normalization(wide, mean, variance, beta, gamma, self.epsilon)
            return cast(y, x.dtype)
        if self.synchronized and meeting.has_others():
            mean, variance = _moments_of_all(self, wide, mask, others)
        elif mask is not None:
            mean, variance = _masked_moments(wide, _kept(self, wide, mask), others)
        elif self.renorm:
            mean, variance = moments(wide, others, keepdims=True)
        else:
            y = layer_norm(wide, gamma, beta, others, self.epsilon)
            self._move(*_observed(stop_gradient(wide), others))
            return cast(y, x.dtype)
        if self.renorm:
            gamma, beta = renormalization.corrected(self, mean, variance, gamma, beta)
        y = batch_normalization(wide, mean, variance, beta, gamma, self.epsilon)
        self._move(mean, variance)
        return cast(y, x.dtype)

    @property
    def meets(self) -> bool:  # type: ignore[override]
        return self.synchronized

    def _move(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards those of the batch."""
        if trying_out():
            return
        if not self.renorm:
            _move(self.moving_mean, mean, self.momentum)
            _move(self.moving_variance, variance, self.momentum)
            return
        deviation = sqrt(variance + self.epsilon)
        _move(self.renorm_mean, mean, self.renorm_momentum)
        _move(self.renorm_stddev, deviation, self.renorm_momentum)
        _move(self.moving_mean, mean, self.momentum)
        new = _move(self.moving_stddev, deviation, self.momentum)
        self.moving_variance.assign(
            cast(maximum(square(new) - self.epsilon, 0.0), self.moving_variance.dtype)
        )


def _move(average: Weight, value: Tensor, momentum: float) -> Tensor:
    value = reshape(stop_gradient(value), average.shape)
    old = cast(average, value.dtype)
    new = old * momentum + value * (1 - momentum)
    average.assign(cast(new, average.dtype))
    return new


def _observed(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance over ``axes`` of what has no gradient."""
    if recording.in_parts() or x._data.dtype.kind != "f":
        return moments(x, axes)
    return bind(observed_moments, x, axis=tuple(axes))


def _kept(layer: Layer, x: Tensor, mask: Any) -> Tensor:
    """Where ``mask`` is true, with an axis more."""
    if len(mask.shape) != len(x.shape) - 1:
        raise ValueError(
            f"{layer.name!r}: the mask has one axis less than the inputs, got shapes "
            f"{tuple(mask.shape)} and {tuple(x.shape)}"
        )
    return expand_dims(cast(mask, "bool"), -1)


def _masked_moments(x: Tensor, kept: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance over ``axes``, kept, of the positions where ``kept`` is true."""
    # As in Keras: of no position at all, both moments are 0.
    count = reduce_sum(where(kept, ones_like(x), 0), axes, keepdims=True) + 1e-7
    mean = reduce_sum(where(kept, x, 0), axes, keepdims=True) / count
    variance = reduce_sum(where(kept, square(x - mean), 0), axes, keepdims=True) / count
    return mean, variance


def _moments_of_all(layer: Layer, x: Tensor, mask: Any, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance over ``axes``, kept, of the inputs of all shards."""
    kept = None if mask is None else _kept(layer, x, mask)

    def sum_of(values: Tensor) -> Tensor:
        chosen = values if kept is None else where(kept, values, 0)
        return reduce_sum(chosen, axes, keepdims=True)

    total, count = over_shards([sum_of(x), stop_gradient(sum_of(ones_like(x)))])
    count = count if kept is None else count + 1e-7
    mean = total / count
    (squares,) = over_shards([sum_of(square(x - mean))])
    return mean, squares / count


class LayerNormalization(_Scaled):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with the moments of each sample.

    ``axis`` is one axis or several; ``gamma`` and ``beta`` have their sizes. Raises TypeError for
    an axis that is neither, ValueError for one out of range. Ba et al., 2016.
    """

    of_each_row = True
    _fixed: ClassVar = {"rms_scaling": False}

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.axis = _axis_or_axes(axis)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._add_scale(_sizes(self, input_shape, _listed(self.axis)))

    def _told_shape(self, shape: Any) -> Any:
        return self._told_same(shape, _listed(self.axis))

    def call(self, x: Tensor) -> Tensor:
        wide = _wide(x)
        along = _kept_sizes(wide, _listed(self.axis))
        gamma, beta = self._scale_and_offset(wide, along)
        return cast(layer_norm(wide, gamma, beta, _listed(self.axis), self.epsilon), x.dtype)


class UnitNormalization(Layer):
    """Divides by the length along ``axis``, an int or several of them. TypeError for others."""

    one_tensor = True
    supports_masking = True
    takes_kinds = ("ragged",)

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(axis, (int, list, tuple)):
            raise TypeError(
                "Invalid value for `axis` argument: expected an int or a list/tuple of ints. "
                f"Received: axis={axis}"
            )
        self.axis = axis if isinstance(axis, int) else list(axis)

    def call(self, x: Any) -> Any:
        squares = reduce_sum(square(x), self.axis, keepdims=True)
        return x * rsqrt(maximum(squares, 1e-24))


class RMSNormalization(Layer):
    """``scale * x / sqrt(mean(x**2) + epsilon)`` over ``axis``, one or several, of each sample.

    Raises TypeError for an axis that is neither, ValueError for one out of range. Zhang and
    Sennrich, 2019.
    """

    of_each_row = one_tensor = True

    def __init__(
        self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.axis = _axis_or_axes(axis)
        self.epsilon = float(epsilon)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = _sizes(self, input_shape, _listed(self.axis))
        self.scale = self.add_weight(shape, "ones", name="scale", autocast=False)

    def call(self, x: Tensor) -> Tensor:
        wide = _wide(x)
        axes = _listed(self.axis)
        y = wide * rsqrt(reduce_mean(square(wide), axes, keepdims=True) + self.epsilon)
        scale = reshape(cast(self.scale, wide.dtype), _kept_sizes(wide, axes))
        return cast(y * scale, x.dtype)


class GroupNormalization(_Scaled):
    """Normalises each of ``groups`` groups of channels of a sample by its own moments.

    ``groups=-1`` gives each channel its own group (instance normalisation). Raises ValueError for
    groups that are not a positive int or -1, or do not divide the channels. Wu and He, 2018.
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(groups, (int, np.integer)) or (groups <= 0 and groups != -1):
            raise ValueError(f"groups must be a positive int or -1, not {groups!r}")
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.groups = int(groups)
        self.axis = int(axis)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        (channels,) = _sizes(self, input_shape, [self.axis])
        groups = channels if self.groups == -1 else self.groups
        if channels % groups:
            raise ValueError(
                f"{self.name!r}: {groups} groups do not divide {channels} channels evenly"
            )
        self._add_scale((channels,))

    def call(self, x: Tensor) -> Tensor:
        wide = _wide(x)
        shape = tuple(wide.shape)
        axis = self.axis % len(shape)
        groups = shape[axis] if self.groups == -1 else self.groups
        split = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
        inside = [a for a in range(1, len(split)) if a != axis]
        y = reshape(layer_norm(reshape(wide, split), axis=inside, epsilon=self.epsilon), shape)
        gamma, beta = self._scale_and_offset(wide, _kept_sizes(wide, [axis]))
        y = y if gamma is None else y * gamma
        return cast(y if beta is None else y + beta, x.dtype)


def _wide(x: Tensor) -> Tensor:
    """In float32 where it is of half precision, whose range is too small for a variance."""
    return cast(x, "float32") if x.dtype.size < 4 else x


def _axis_or_axes(axis: Any) -> int | list[int]:
    if isinstance(axis, (list, tuple)):
        return list(axis)
    if not isinstance(axis, int):
        raise TypeError(f"axis is an int or a list of ints, not {axis!r}")
    return axis


def _listed(axis: int | list[int]) -> list[int]:
    return sorted(axis) if isinstance(axis, list) else [axis]


def _sizes(layer: Layer, shape: tuple[int | None, ...], axes: list[int]) -> tuple[int, ...]:
    """The sizes of ``shape`` along ``axes``. Raises ValueError where there is none."""
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise ValueError(f"{layer.name!r}: axis {axes} is out of range for inputs {tuple(shape)}")
    sizes = [shape[axis] for axis in axes]
    if None in sizes:
        raise ValueError(f"{layer.name!r}: axis {axes} of inputs {tuple(shape)} must be known")
    return tuple(size for size in sizes if size is not None)


def _kept_sizes(x: Tensor, axes: list[int]) -> list[int]:
    """The shape of ``x`` with 1 at every axis but ``axes``."""
    rank = len(x.shape)
    kept = {axis % rank for axis in axes}
    return [n if a in kept else 1 for a, n in enumerate(x.shape)]
