"""InputSpec: what a layer demands of the tensors it is called on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.core import tree
from distgrad.core.dtypes import as_dtype


class InputSpec:
    """The rank, shape, dtype or sizes of axes that an input of a layer must have.

    ``shape`` has None for axes of any size, ``axes`` maps numbers of axes to sizes. With
    ``allow_last_axis_squeeze`` a last axis of size 1 may be missing or there. A layer whose
    ``input_spec`` is set checks it at every call. Raises TypeError for other ``axes``, ValueError
    for one that lies outside of the rank.
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: Mapping[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = None if dtype is None else as_dtype(dtype).name
        self.shape = None if shape is None else tuple(shape)
        self.ndim = ndim if self.shape is None else len(self.shape)
        self.max_ndim, self.min_ndim = max_ndim, min_ndim
        self.name, self.optional = name, optional
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        try:
            self.axes = {int(axis): size for axis, size in dict(axes or {}).items()}
        except (ValueError, TypeError):
            raise TypeError(
                f"Argument `axes` must be a dict with integer keys. Received: axes={axes}"
            ) from None
        rank = self.ndim or self.max_ndim
        if self.axes and rank is not None and max(self.axes) > rank - 1:
            raise ValueError(
                f"Axis {max(self.axes)} is greater than the maximum allowed value: {rank - 1}"
            )

    def __repr__(self) -> str:
        names = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes")
        said = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name)]
        return f"InputSpec({', '.join(said)})"

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes", "optional")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InputSpec:
        """A spec with these settings."""
        return cls(**config)


def check_inputs(spec: Any, inputs: Any, layer: str) -> None:
    """Raises ValueError where inputs are not as the specs of the layer of that name demand."""
    specs = tree.flatten(spec)
    names = [each.name for each in specs if each is not None]
    if isinstance(inputs, Mapping) and len(names) == len(specs) and all(names):
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ValueError(
                f'Missing data for input "{missing[0]}". You passed a data dictionary with keys '
                f"{list(inputs)}. Expected the following keys: {names}"
            )
        inputs = [inputs[name] for name in names]
    given = tree.flatten(inputs)
    if len(given) != len(specs):
        raise ValueError(
            f'Layer "{layer}" expects {len(specs)} input(s), but it received {len(given)} input '
            f"tensors. Inputs received: {given}"
        )
    for number, (x, each) in enumerate(zip(given, specs, strict=True)):
        if each is None or (x is None and each.optional):
            continue
        if not hasattr(x, "shape"):
            raise ValueError(
                f"Inputs to a layer should be tensors. Got '{x}' (of type {type(x)}) as input for "
                f"layer '{layer}'."
            )
        wrong = _mismatch(each, tuple(x.shape), x.dtype)
        if wrong:
            raise ValueError(
                f"Input {number} with name '{each.name}' of layer '{layer}' is incompatible with "
                f"the layer: {wrong}"
            )


def _mismatch(spec: InputSpec, shape: tuple[int | None, ...], dtype: Any) -> str | None:
    """What is wrong with a tensor of this shape and dtype, in Keras's words."""
    rank = len(shape)
    full = f"Full shape received: {shape}"
    if spec.ndim not in (None, rank) and not spec.allow_last_axis_squeeze:
        return f"expected ndim={spec.ndim}, found ndim={rank}. {full}"
    if spec.max_ndim is not None and rank > spec.max_ndim:
        return f"expected max_ndim={spec.max_ndim}, found ndim={rank}"
    if spec.min_ndim is not None and rank < spec.min_ndim:
        return f"expected min_ndim={spec.min_ndim}, found ndim={rank}. {full}"
    if spec.dtype is not None and as_dtype(dtype).name != spec.dtype:
        return f"expected dtype={spec.dtype}, found dtype={as_dtype(dtype).name}"
    for axis, size in spec.axes.items():
        if size is not None and shape[axis] not in (size, None):
            return (
                f"expected axis {axis} of input shape to have value {size}, but received input "
                f"with shape {shape}"
            )
    if spec.shape is not None:
        wanted, found = spec.shape, shape
        if spec.allow_last_axis_squeeze:
            wanted, found = (s[:-1] if s and s[-1] == 1 else s for s in (wanted, found))
        if any(None not in (a, b) and a != b for a, b in zip(wanted, found, strict=False)):
            return f"expected shape={spec.shape}, found shape={shape}"
    return None
