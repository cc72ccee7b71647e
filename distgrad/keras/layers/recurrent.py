"""Recurrent layers: a cell in a loop over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from distgrad.core import tree
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.calling import calls, trying_out
from distgrad.keras.layers.recurrent_cells import (
    GRUCell,
    LSTMCell,
    RecurrentCell,
    SimpleRNNCell,
    Step,
    state_sizes,
)
from distgrad.keras.layers.stacked_cells import StackedRNNCells
from distgrad.ops.casting import cast, stop_gradient, zeros_like
from distgrad.ops.constants import zeros
from distgrad.ops.layout import broadcast_to
from distgrad.ops.logic import where
from distgrad.ops.shape import expand_dims, reshape, stack, transpose, unstack
from distgrad.training.state import share


class RNN(Layer):
    """Runs a cell over the steps of sequences of shape (batch, time, ...).

    A cell, or a list of cells one upon the other, has ``call(inputs, states)``, which gives an
    output and the new states, and a ``state_size``, an int or a list of them; it may have
    ``get_initial_state(batch_size)``. Gives the last output, or all of them (``return_sequences``),
    and with ``return_state`` the last states after it. At a step that ``mask`` leaves out, output
    and states stay as they were (the output is zero with ``zero_output_for_mask``). A ``stateful``
    layer begins each batch with the last states of the one before, until ``reset_state``; they
    belong to the batch's samples one by one, and are not among the weights. ``unroll`` changes
    nothing: the loop is always Python's.

    Raises ValueError for an object that is no cell, a number of states that does not fit, and of
    a stateful layer for another batch size, or one of several shards of a training step.
    """

    one_tensor = True

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        self.state_size = state_sizes(cell)
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self._memory = _Memory()

    @property
    def states(self) -> list[Variable] | None:
        """What a stateful layer has kept; None before its first batch."""
        return self._memory.values

    def reset_state(self) -> None:
        """Makes a stateful layer begin from zeros, with any batch size."""
        self._memory.reset()

    reset_states = reset_state

    def build(self, sequences_shape: tuple[int | None, ...]) -> None:
        if len(sequences_shape) < 3:
            raise ValueError(
                f"{self.name!r} takes inputs of shape (batch, time, features), not "
                f"{tuple(sequences_shape)}"
            )
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build((sequences_shape[0], *sequences_shape[2:]))

    def get_initial_state(self, batch_size: Any) -> list[Tensor]:
        """The states before the first step, for a batch of a size, or of the inputs in its place.

        Keras 2 was given the inputs.
        """
        sizes = tuple(getattr(batch_size, "shape", ()))
        if sizes:
            batch_size = sizes[0]
        if hasattr(self.cell, "get_initial_state"):
            return tree.flatten(self.cell.get_initial_state(batch_size))
        return [zeros((batch_size, n), self.compute_dtype) for n in self.state_size]

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        batch, length = sequences.shape[:2]
        if not length:
            raise ValueError(f"{self.name!r} got sequences of no steps: {tuple(sequences.shape)}")
        begun = states = self._first_states(initial_state, batch)
        by_time, step, whole = self._prepared(sequences, training)
        if whole is not None and mask is None:
            by_time = by_time[::-1] if self.go_backwards else by_time
            outputs, states = whole(by_time, states)
            output = _by_sample(outputs) if self.return_sequences else states[0]
        else:
            inputs = unstack(by_time)
            kept = None if mask is None else self._steps_of_mask(mask, sequences)
            if self.go_backwards:
                inputs, kept = inputs[::-1], kept and kept[::-1]
            each, states = self._loop(step, inputs, states, kept)
            output = stack(each, axis=1) if self.return_sequences else each[-1]
        if self.stateful and not trying_out():
            self._memory.keep(states, begun)
        return (output, *self._of_cell(states)) if self.return_state else output

    def _prepared(self, sequences: Tensor, training: bool) -> tuple[Tensor, Any, Any]:
        """What goes into the steps, by time, the function of (that of one, states) to (output,
        states), and that of all steps at once where there is one.
        """
        by_time = transpose(sequences, [1, 0, *range(2, len(sequences.shape))])
        if not isinstance(self.cell, RecurrentCell) or self.cell.calls_itself:
            return by_time, self._call_cell, None
        if not by_time.dtype.is_floating:
            by_time = cast(by_time, self.compute_dtype)
        input_masks, state_masks = self.cell.masks(sequences.shape[0], training)
        step: Step = self.cell.recurrence(state_masks)

        def output_and_states(x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            new = step(x, states)
            return new[0], new

        whole = None if state_masks is not None else self.cell.at_once()
        return self.cell.project(by_time, input_masks), output_and_states, whole

    def _call_cell(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, new = self.cell(x, self._of_cell(states))
        return output, tree.flatten(new)

    def _of_cell(self, states: list[Tensor]) -> list[Any]:
        """The states in the nest in which the cell has them: those of each cell of several."""
        size = self.cell.state_size
        nested = isinstance(size, (list, tuple)) and tree.flatten(size) != list(size)
        return tree.pack_sequence_as(size, states) if nested else states

    def _loop(
        self,
        step: Any,
        inputs: Iterable[Tensor],
        states: list[Tensor],
        kept: Sequence[Tensor] | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        outputs: list[Tensor] = []
        for t, x in enumerate(inputs):
            output, new = step(x, states)
            if kept is None:
                states = new
            else:
                stay = outputs and not self.zero_output_for_mask
                before = outputs[-1] if stay else zeros_like(output)
                output = where(_as_rank(kept[t], output), output, before)
                states = [
                    where(_as_rank(kept[t], s), s, old) for s, old in zip(new, states, strict=True)
                ]
            outputs.append(output)
        return outputs, states

    def _steps_of_mask(self, mask: Any, sequences: Tensor) -> list[Tensor]:
        if tuple(mask.shape[:2]) != tuple(sequences.shape[:2]):
            raise ValueError(
                f"{self.name!r}: the mask of shape {tuple(mask.shape)} does not fit sequences of "
                f"shape {tuple(sequences.shape)}: it has one entry per sample and step"
            )
        return unstack(cast(mask, "bool"), axis=1)

    def _first_states(self, initial_state: Any, batch: int) -> list[Tensor]:
        if self.stateful and share() < 1:
            raise ValueError(
                f"{self.name!r}: a stateful layer keeps one state per sample of a batch, and this "
                "training step cuts the batch into several shards. Train with one virtual shard "
                "on one worker, or without stateful=True."
            )
        if initial_state is None:
            if not self.stateful or calls.trial or not self._memory.holds(batch):
                return self.get_initial_state(batch)
            assert self.states is not None
            if self.states[0].shape[0] != batch:
                raise ValueError(
                    f"{self.name!r} is stateful: the batch before had {self.states[0].shape[0]} "
                    f"samples, this one has {batch}. Give batches of one size, or call "
                    "reset_state()."
                )
            return [stop_gradient(cast(state, self.compute_dtype)) for state in self.states]
        states = tree.flatten(initial_state)
        if len(states) != len(self.state_size):
            raise ValueError(
                f"{self.name!r} has {len(self.state_size)} states, initial_state has {len(states)}"
            )
        return states

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        mask = mask if self.return_sequences else None
        return [mask, *(None for _ in self.state_size)] if self.return_state else mask


class _Memory:
    """States between batches. It hides them from the layer's list of weights, as Keras does."""

    def __init__(self) -> None:
        self.values: list[Variable] | None = None
        self.is_new = False  # since they were zeroed

    def holds(self, batch: int) -> bool:
        """Whether there are states to go on from; zeros of another batch size are none."""
        if self.values is not None and self.is_new and self.values[0].shape[0] != batch:
            self.values = None
        return self.values is not None

    def keep(self, states: list[Tensor], begun: list[Tensor]) -> None:
        """Keeps the states of a batch that was begun with others: those, if it is but traced."""
        if self.values is None:
            first = [
                broadcast_to(cast(old, new.dtype), new.shape)
                for old, new in zip(begun, states, strict=True)
            ]
            self.values = [Variable(s, trainable=False, name="rnn_state") for s in first]
        for variable, state in zip(self.values, states, strict=True):
            variable.assign(cast(state, variable.dtype))
        self.is_new = False

    def reset(self) -> None:
        """Zeros for the states, in the variables that captured steps know."""
        for variable in self.values or ():
            variable.assign(zeros_like(variable))
        self.is_new = True


def _by_sample(x: Tensor) -> Tensor:
    """``[batch, time, units]`` of ``[time, batch, units]``, laid out in memory as if stacked."""
    by_sample = transpose(x, [1, 0, 2])
    return reshape(reshape(by_sample, (-1,)), by_sample.shape)


def _as_rank(mask: Tensor, value: Tensor) -> Tensor:
    """A mask of shape (batch,) or (batch, 1), with axes of 1 up to the rank of ``value``."""
    while len(mask.shape) < len(value.shape):
        mask = expand_dims(mask, -1)
    return mask


class _OfUnits(RNN):
    """A recurrent layer that makes its cell itself; its arguments are the cell's and RNN's."""

    cell_class: type[RecurrentCell]
    cell_only: tuple[str, ...] = ()  # what its cell takes beyond the arguments below

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        own = {name: kwargs.pop(name) for name in self.cell_only if name in kwargs}
        cell = self.cell_class(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            dtype=kwargs.get("dtype"),
            **own,
        )
        super().__init__(cell, **kwargs)
        if not kwargs.get("trainable", True):
            self.trainable = False

    def __getattr__(self, name: str) -> Any:
        # What the cell was made with: units, activation and so on.
        if "cell" in self.__dict__ and name in registry.arguments(self.cell_class):
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["cell"]
        return config


class SimpleRNN(_OfUnits):
    """The fully connected recurrent layer: `SimpleRNNCell` over time. Arguments as of `RNN`."""

    cell_class = SimpleRNNCell


class LSTM(_OfUnits):
    """Long short-term memory: `LSTMCell` over time. Arguments as of `RNN`.

    ``use_cudnn`` and ``implementation`` change nothing.
    """

    cell_class = LSTMCell
    _not_in_config = (*RNN._not_in_config, "use_cudnn", "implementation")  # as in Keras
    cell_only = ("recurrent_activation", "unit_forget_bias")

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        unit_forget_bias: bool = True,
        use_cudnn: bool | str = "auto",
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        kwargs |= {
            "recurrent_activation": recurrent_activation,
            "unit_forget_bias": unit_forget_bias,
        }
        super().__init__(units, activation, use_bias, **kwargs)


class GRU(_OfUnits):
    """Gated recurrent unit: `GRUCell` over time. Arguments as of `RNN`.

    ``use_cudnn`` and ``implementation`` change nothing.
    """

    cell_class = GRUCell
    _not_in_config = (*RNN._not_in_config, "use_cudnn", "implementation")  # as in Keras
    cell_only = ("recurrent_activation", "reset_after")

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"recurrent_activation": recurrent_activation, "reset_after": reset_after}
        super().__init__(units, activation, use_bias, **kwargs)
