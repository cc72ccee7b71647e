"""Weight: a variable of a layer."""

from __future__ import annotations

from typing import Any

from distgrad.core.dtypes import DType, as_dtype, is_floating
from distgrad.core.tensor import Tensor
from distgrad.keras import mixed_precision
from distgrad.keras.variable import Variable
from distgrad.ops.casting import cast

_read = Variable._read  # (a call of super costs as much as it does)


class Weight(Variable):
    """A layer's variable: ``name`` is short, ``path`` says where in the model it lies.

    ``regularizer`` is a penalty that ``layer.losses`` holds, ``constraint`` what optimizers apply
    after an update. Inside the call of a layer whose policy computes in another dtype than it
    keeps its weights in, a float weight is read in that dtype, and its gradient comes in its own.
    """

    stand_in: Tensor | None = None  # what is read in its place, in a stateless call
    _autocast = False

    def __init__(
        self,
        initial_value: Any,
        *,
        regularizer: Any = None,
        constraint: Any = None,
        autocast: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(initial_value, **kwargs)
        self.path = self.name
        self.regularizer = regularizer
        self.constraint = constraint
        self.made_trainable = self.trainable
        self._autocast = autocast and is_floating(self._buffer.dtype)

    @property
    def dtype(self) -> DType:
        """What it is read in: inside such a call, the dtype that the policy computes in."""
        if mixed_precision.scopes and self._autocast:
            return as_dtype(mixed_precision.autocast_dtype() or self._buffer.dtype)
        return as_dtype(self._buffer.dtype)

    def _combined(self, name: str, delta: Any) -> Any:
        if not mixed_precision.scopes:
            return super()._combined(name, delta)
        with mixed_precision.autocast(None):  # what is kept is added to
            return super()._combined(name, delta)

    def _read(self) -> Tensor:
        value = _read(self) if self.stand_in is None else self.stand_in
        if mixed_precision.scopes and self._autocast:
            wanted = mixed_precision.autocast_dtype()
            if wanted is not None and wanted != value._data.dtype:
                return cast(value, wanted)
        return value
