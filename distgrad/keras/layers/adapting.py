"""LoRA: a large table of a layer is left as it is, and the product of two small ones is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras import initializers
from distgrad.keras.layers.base import Layer, Weight
from distgrad.ops.casting import cast
from distgrad.ops.linalg import matmul
from distgrad.ops.shape import reshape


class Table:
    """The attribute of an `Adapted` layer for its large weight: with LoRA, the sum of both.

    Raises AttributeError before the layer is built.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._place = name, f"_{name}"

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        weight = layer.__dict__.get(self._place)
        if weight is None:
            raise AttributeError(f"You must build the layer before accessing `{self._name}`.")
        return layer._merged(layer.compute_dtype) if layer.lora_enabled else weight

    def __set__(self, layer: Any, weight: Any) -> None:
        layer.__dict__[self._place] = weight


class Adapted(Layer):
    """Base of the layers with ``enable_lora``: ``table + lora_alpha / lora_rank * a @ b``.

    A subclass names the weight in ``adapted``, has a `Table` of that name, and ends ``build`` with
    ``_adapt``. ``a`` is ``[..., rank]`` and ``b`` ``[rank, columns]``, both float32. Files hold the
    sum, and where one is read, ``b`` starts anew at 0. Hu et al., 2021.
    """

    adapted: str
    lora_enabled = False

    def __init__(
        self,
        *args: Any,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lora_rank = lora_rank
        self.lora_alpha = lora_rank if lora_alpha is None else lora_alpha

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; those of LoRA where it is in use."""
        config = super().get_config()
        if not self.lora_rank:
            config.pop("lora_rank", None)
            config.pop("lora_alpha", None)
        return config

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """From now on trains ``a`` and ``b`` in place of the table; compile the model after it.

        Raises ValueError for a layer that is not built, has a constraint for the table, or has
        LoRA already.
        """
        if getattr(self, f"{self.adapted}_constraint"):
            raise ValueError(
                f"Lora is incompatible with {self.adapted.removesuffix('s')} constraints. In order "
                f"to enable lora on this layer, remove the `{self.adapted}_constraint` argument."
            )
        if not self.built:
            raise ValueError("Cannot enable lora on a layer that isn't yet built.")
        if self.lora_enabled:
            raise ValueError("lora is already enabled. This can only be done once per layer.")
        table = self._table
        *rows, columns = table.shape
        for letter, shape, initializer in (
            ("a", (*rows, rank), a_initializer),
            ("b", (rank, columns), b_initializer),
        ):
            weight = self.add_weight(
                shape,
                initializers.get(initializer),
                dtype="float32",
                name=f"lora_{self.adapted}_{letter}",
                regularizer=getattr(self, f"{self.adapted}_regularizer"),
            )
            setattr(self, f"lora_{self.adapted}_{letter}", weight)
        table.trainable = False
        self.lora_enabled = True
        self.lora_rank = rank
        self.lora_alpha = rank if lora_alpha is None else lora_alpha
        self._name_weights(self.path.removesuffix(self.name))

    def _adapt(self) -> None:
        """Enables LoRA in a layer that was made with it; the last act of ``build``."""
        if self.lora_rank and not self.lora_enabled:
            self.built = True
            self.enable_lora(self.lora_rank, self.lora_alpha)

    @property
    def _table(self) -> Weight:
        return self.__dict__[f"_{self.adapted}"]

    @property
    def _factors(self) -> tuple[Weight, Weight]:
        return tuple(getattr(self, f"lora_{self.adapted}_{letter}") for letter in "ab")

    def _merged(self, dtype: str) -> Tensor:
        """The table with the product of ``a`` and ``b`` added to it."""
        table, (a, b) = as_tensor(self._table), map(as_tensor, self._factors)
        rank = b._data.shape[0]
        product = matmul(reshape(a, (-1, rank)), b) * (self.lora_alpha / self.lora_rank)  # type: ignore[operator]
        wide = table if table.dtype.size >= product.dtype.size else cast(table, product.dtype)
        return cast(wide + cast(reshape(product, table._data.shape), wide.dtype), dtype)

    # Saved and loaded

    def says_itself(self, method: str) -> bool:
        return self.lora_enabled or getattr(type(self), method) is not getattr(Adapted, method)

    def _others(self) -> list[Any]:
        left_out = {id(weight) for weight in (self._table, *self._factors)}
        return [weight for weight in self._tracked_weights() if id(weight) not in left_out]

    def save_own_variables(self, store: Any) -> None:
        """Writes the weights under "0", "1", ...; with LoRA, the sum first, and no factors."""
        if not self.lora_enabled:
            super().save_own_variables(store)
            return
        with recording.paused():
            store["0"] = np.asarray(self._merged(self.variable_dtype).numpy())
        for number, weight in enumerate(self._others(), 1):
            store[str(number)] = np.asarray(weight.numpy())

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Reads what ``save_own_variables`` wrote. Raises ValueError where it does not fit."""
        if not self.lora_enabled:
            super().load_own_variables(store)
            return
        weights = [self._table, *self._others()]
        if len(store) != len(weights):
            raise ValueError(
                f"Layer '{self.name}' expected {len(weights)} variables, but received {len(store)} "
                "variables during loading"
            )
        for number, weight in enumerate(weights):
            weight.assign(np.asarray(store[str(number)]))
        b = self._factors[1]
        b.assign(np.zeros(b.shape, np.float32))  # (were a zeros too, neither would ever change)
