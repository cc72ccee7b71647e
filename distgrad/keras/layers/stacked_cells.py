"""StackedRNNCells: cells one upon the other as one cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.core import tree
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.base import Layer
from distgrad.ops.constants import zeros


class StackedRNNCells(Layer):
    """Cells of which each gets the output of the one before, in one step of an `RNN`.

    Its states are those of all cells in order, in a list of lists. Raises ValueError for an object
    that is no cell.
    """

    def __init__(self, cells: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for cell in cells:
            for name in ("call", "state_size"):
                if not hasattr(cell, name):
                    raise ValueError(
                        f"All cells must have a `{name}` attribute. Received cell without a "
                        f"`{name}`: {cell}"
                    )
        self.cells = list(cells)

    @property
    def state_size(self) -> list[Any]:
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> int:
        return _output_size(self.cells[-1])

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """The states of all cells before the first step."""
        return [self._initial_of(cell, batch_size) for cell in self.cells]

    def _initial_of(self, cell: Any, batch_size: int) -> Any:
        if hasattr(cell, "get_initial_state"):
            return cell.get_initial_state(batch_size)
        return tree.map_structure(
            lambda size: zeros((batch_size, size), self.compute_dtype), cell.state_size
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for cell in self.cells:
            if isinstance(cell, Layer) and not cell.built:
                cell.build(input_shape)
            input_shape = (input_shape[0], _output_size(cell))

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> tuple[Tensor, list[Any]]:
        new = []
        for cell, given in zip(self.cells, states, strict=True):
            takes = isinstance(cell, Layer) and cell._takes_training
            options = {"training": training} if takes else {}
            several = isinstance(given, (list, tuple))
            # A cell is given a list of its states also where there is one: users' cells index it.
            inputs, state = cell(inputs, given if several else [given], **options)
            if several and not isinstance(state, (list, tuple)):
                state = [state]
            elif not several and isinstance(state, (list, tuple)):
                (state,) = state
            new.append(state)
        return inputs, new


def _output_size(cell: Any) -> int:
    size = getattr(cell, "output_size", None)
    if size is not None:
        return size
    size = cell.state_size
    return size[0] if isinstance(size, (list, tuple)) else size
