"""``keras.Variable``: a variable made by Keras's arguments. The weights of layers are some."""

from __future__ import annotations

from typing import Any

from distgrad.core import recording, variable
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.tensor import Operand, Tensor
from distgrad.keras.backend import standardize_dtype
from distgrad.keras.naming import auto_name
from distgrad.keras.operators import alike, promote
from distgrad.ops.casting import cast


@promote
class Variable(variable.Variable):
    """A mutable tensor, of an array or of what ``initializer(shape, dtype=...)`` makes.

    The initializer may be named. ``name`` is short, ``path`` has the name scopes before it; one
    without a name is ``variable``, the next in a process ``variable_1``, but for files. Beside
    tensors of other dtypes its operators promote as those of ``keras.ops``, and what is assigned
    is cast to its own.
    ``autocast``, ``aggregation`` and ``synchronization`` change nothing. Raises ValueError for an
    initializer without a ``shape``.
    """

    promotes = True

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str | None = "none",
        synchronization: str | None = "auto",
        name: str | None = None,
    ) -> None:
        if isinstance(initializer, str):
            from distgrad.keras import initializers

            initializer = initializers.get(initializer)
        made = callable(initializer) and not isinstance(initializer, Operand)
        if dtype is not None or made:
            dtype = standardize_dtype(dtype)
        if made:
            if shape is None:
                raise ValueError(
                    "When creating a Variable from an initializer, the `shape` argument should be "
                    f"specified. Received: initializer={initializer} and shape={shape}"
                )
            initializer = initializer(tuple(shape), dtype=dtype)
        super().__init__(
            initializer, trainable=trainable, name=name or "variable", dtype=dtype, shape=shape
        )
        self._shown_name = name or auto_name("variable")
        self.path = self._scope + self._shown_name

    def _new_value(self, value: Any, any_size: bool = False) -> Any:
        dtype, known = self._buffer.dtype, isinstance(value, Operand)
        if (known and value.dtype != as_dtype(dtype)) or not (known or is_floating(dtype)):
            with recording.paused():
                value = cast(as_tensor(value), dtype)
        return super()._new_value(value, any_size)

    def _combined(self, name: str, delta: Any) -> Any:
        if type(delta) is int or alike(self._buffer.dtype, delta):
            return super()._combined(name, delta)
        with recording.paused():
            total = self + delta if name == "add" else self - delta
        return self._new_value(total)

    @property
    def name(self) -> str:
        return self._shown_name

    def __round__(self, ndigits: int | None = None) -> Tensor:
        from distgrad.keras.ops import round

        return round(self, ndigits or 0)

    def __repr__(self) -> str:
        hidden = recording.active and recording.hides(self)
        value = "" if hidden else f", value={Tensor(self._buffer).numpy()}"
        shape, dtype = tuple(self.shape), self.dtype.name
        return f"<Variable path={self.path}, shape={shape}, dtype={dtype}{value}>"
