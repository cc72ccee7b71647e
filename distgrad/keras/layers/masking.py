"""Masks: which time steps count. A tensor carries its mask from layer to layer."""

from __future__ import annotations

from typing import Any

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn


class Masked:
    """How a layer gets the masks of its inputs, and what becomes of them.

    A layer whose ``call`` takes ``mask`` gets that of its input where it is given one alone, as in
    Keras; ``value_mask`` is that of its argument ``value``.
    """

    name: str
    supports_masking: bool = False
    _call_parameters: tuple[str, ...] | None
    _mask_for: dict[str, str]  # of each argument for a mask: whose it is; "" for the first input

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The mask of the outputs: that of the inputs, where the layer supports masking."""
        return previous_mask

    def _fill_in_masks(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """Masks that tensors carry, for the arguments of ``call`` that ask for them."""
        given = dict(zip(self._call_parameters or (), args, strict=False))
        alone = sum(map(_of_tensors, (*args, *kwargs.values()))) == 1
        for name, source in self._mask_for.items():
            if not (source or alone):
                continue
            if kwargs.get(name) is None and name not in given:
                value = (args[0] if args else None) if not source else given.get(source)
                kwargs[name] = mask_of(kwargs.get(source) if value is None else value)

    def _pass_on_mask(self, inputs: tuple, outputs: Any, given: Any, carried: Any) -> None:
        mask = carried if given is None else given
        if not self.supports_masking and type(self).compute_mask is Masked.compute_mask:
            # One that was given as an argument alone is this layer's own affair.
            if carried is not None and any(m is not None for m in tree.flatten(carried)):
                self._warn_of_lost_mask(outputs)
            return
        if not inputs:
            return
        made = self.compute_mask(inputs[0], mask)
        if made is None:
            return
        leaves = tree.flatten(outputs)
        masks = tree.flatten(made) if tree.is_nested(made) else [made] * len(leaves)
        for tensor, each in zip(leaves, masks, strict=False):
            if isinstance(tensor, Tensor) and each is not None and mask_of(tensor) is None:
                tensor._keras_mask = each

    def _warn_of_lost_mask(self, outputs: Any) -> None:
        if "_warned_of_mask" not in self.__dict__ and all(
            mask_of(t) is None for t in tree.flatten(outputs)
        ):
            self._warned_of_mask = True
            warn(
                f"layer {self.name!r} got an input with a mask, and does not support masking: "
                "layers after it will not see the mask"
            )


def _of_tensors(value: Any) -> bool:
    leaves = tree.flatten(value)
    return bool(leaves) and all(hasattr(leaf, "dtype") for leaf in leaves)


def mask_of(value: Any) -> Any:
    """The mask that a tensor carries, or None; a nest of them where one in a nest has one."""
    if tree.is_nested(value):
        masks = tree.map_structure(mask_of, value)
        return masks if any(mask is not None for mask in tree.flatten(masks)) else None
    return getattr(value, "_keras_mask", None)


def drop_mask(value: Any) -> None:
    """Takes the mask off a tensor, for all that use it later."""
    if mask_of(value) is not None:
        value._keras_mask = None


def masked(value: Any, mask: Any) -> Any:
    """A nest of tensors that carry these masks, a nest like it; those with one keep theirs."""
    if mask is None:
        return value
    if tree.is_nested(value):
        masks = mask if tree.is_nested(mask) else tree.map_structure(lambda _: mask, value)
        return tree.map_structure(masked, value, masks)
    tensor = as_tensor(value)
    if mask_of(tensor) is None:
        tensor._keras_mask = as_tensor(mask)
    return tensor


def carry_mask(source: Any, target: Tensor) -> Tensor:
    """``target`` with the mask of ``source``."""
    mask = getattr(source, "_keras_mask", None)
    if mask is not None:
        target._keras_mask = mask
    return target
