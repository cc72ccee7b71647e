"""Layers around a layer: both ways through time, and one by one over time."""

from __future__ import annotations

from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.normalization import BatchNormalization
from distgrad.ops.layout import reverse
from distgrad.ops.shape import concat, reshape

_MERGE_MODES = ("sum", "mul", "ave", "concat", None)
_COMMON = ("stateful", "return_sequences", "return_state")


class Bidirectional(Layer):
    """Runs a recurrent layer forwards, one backwards, and merges what they give.

    Both are new layers with the arguments of ``layer``, named ``forward_...`` and
    ``backward_...``; ``backward_layer`` gives the second its own. ``merge_mode`` is ``"concat"``
    (over the last axis), ``"sum"``, ``"mul"``, ``"ave"``, or None for the two as they are. With
    ``return_state`` the forward states follow, then the backward ones; ``initial_state`` lists
    them in that order. Steps left out by ``mask`` are zero in sequences. Raises ValueError for a
    wrong mode and for layers that do not go together. Schuster and Paliwal, 1997.
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        for name, given in (("layer", layer), ("backward_layer", backward_layer)):
            if not isinstance(given, Layer) and (name == "layer" or given is not None):
                raise ValueError(f"{name} must be a recurrent layer, not {given!r}")
        if merge_mode not in _MERGE_MODES:
            raise ValueError(f"merge_mode is one of {_MERGE_MODES}, not {merge_mode!r}")
        super().__init__(**kwargs)
        self.supports_masking = True
        self.merge_mode = merge_mode
        self.forward_layer: Any = _copy(layer, "forward_")
        self.backward_layer: Any = backward_layer or _copy(layer, "backward_", go_backwards=True)
        self._check_pair()
        self._initial_weights = list(weights) if weights else None
        self.stateful = layer.stateful
        self.return_sequences = layer.return_sequences
        self.return_state = layer.return_state
        for each in (self.forward_layer, self.backward_layer):
            each.zero_output_for_mask = self.return_sequences

    def _check_pair(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                f"one of the two layers must go backwards: go_backwards is {forward.go_backwards} "
                "in both"
            )
        for name in _COMMON:
            first, second = getattr(forward, name), getattr(backward, name)
            if first != second:
                raise ValueError(f"{name} is {first} forwards and {second} backwards")

    def build(self, sequences_shape: tuple[int | None, ...]) -> None:
        for each in (self.forward_layer, self.backward_layer):
            if not each.built:
                each.build(sequences_shape)
        if self._initial_weights is not None:
            half = len(self._initial_weights) // 2
            self.forward_layer.set_weights(self._initial_weights[:half])
            self.backward_layer.set_weights(self._initial_weights[half:])

    def reset_state(self) -> None:
        """Makes stateful layers begin from zeros."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    reset_states = reset_state

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        half = None if initial_state is None else len(initial_state) // 2
        given = (None, None) if half is None else (initial_state[:half], initial_state[half:])
        ahead, back = (
            layer(sequences, initial_state=state, mask=mask, training=training)
            for layer, state in zip((self.forward_layer, self.backward_layer), given, strict=True)
        )
        states: tuple = ()
        if self.return_state:
            states = (*ahead[1:], *back[1:])
            ahead, back = ahead[0], back[0]
        if self.return_sequences:
            back = reverse(back, [1])
        if self.merge_mode is None:
            return (ahead, back, *states)
        merged = self._merge(ahead, back)
        return (merged, *states) if self.return_state else merged

    def _merge(self, ahead: Tensor, back: Tensor) -> Tensor:
        if self.merge_mode == "concat":
            return concat([ahead, back], -1)
        if self.merge_mode == "mul":
            return ahead * back
        total = ahead + back
        return total / 2 if self.merge_mode == "ave" else total

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        mask = mask if self.return_sequences else None
        masks = [mask] if self.merge_mode else [mask, mask]
        if self.return_state:
            states = len(self.forward_layer.state_size) + len(self.backward_layer.state_size)
            masks += [None] * states
        return masks if len(masks) > 1 else mask

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["layer"] = registry.serialize(self.forward_layer)
        config["backward_layer"] = registry.serialize(self.backward_layer)
        del config["weights"]  # as in Keras: they go with the other weights
        return config

    @property
    def layer(self) -> Layer:
        return self.forward_layer


def _copy(layer: Layer, prefix: str, **changes: Any) -> Any:
    """A new layer with the arguments of ``layer`` and the prefix before its name."""
    config = registry.serialize(layer)
    config["config"] |= {"name": prefix + layer.name.removeprefix(prefix), **changes}
    return type(layer).from_config(config["config"])


class TimeDistributed(Layer):
    """Applies a layer to each step of inputs of shape (batch, time, ...).

    All steps are one batch of batch * time samples for the inner layer: it runs once, and a
    BatchNormalization takes its moments over the steps as well. A ``mask`` of shape (batch, time)
    goes on to the next layer, and to an inner layer that takes one entry for a sample: that of a
    user, or a BatchNormalization. One with further axes is given to any. Raises ValueError for
    anything but a layer, inputs of rank below 3, and a mask that does not fit.
    """

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        if not isinstance(layer, Layer):
            raise ValueError(f"TimeDistributed takes a layer, not {layer!r}")
        super().__init__(**kwargs)
        self.supports_masking = True
        self.layer = layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 3:
            raise ValueError(
                f"{self.name!r} takes inputs of shape (batch, time, ...) of rank 3 or more, not "
                f"{tuple(input_shape)}"
            )
        if not self.layer.built:
            self.layer.build((input_shape[0], *input_shape[2:]))

    def call(self, inputs: Tensor, training: bool = False, mask: Any = None) -> Tensor:
        lead = tuple(inputs.shape[:2])
        options = {}
        if mask is not None:
            if tuple(mask.shape[:2]) != lead:
                raise ValueError(
                    f"{self.name!r}: a mask of shape {tuple(mask.shape)} does not fit inputs of "
                    f"shape {tuple(inputs.shape)}: its first two axes are (batch, time)"
                )
            if "mask" in self.layer._mask_for and (len(mask.shape) > 2 or self._masks_samples()):
                options["mask"] = reshape(mask, (-1, *mask.shape[2:]))
        rows = reshape(inputs, (lead[0] * lead[1], *inputs.shape[2:]))
        outputs = self.layer(rows, training=training, **options)
        return reshape(outputs, (*lead, *outputs.shape[1:]))

    def _masks_samples(self) -> bool:
        return isinstance(self.layer, BatchNormalization) or not registry.is_ours(
            type(self.layer).call
        )
