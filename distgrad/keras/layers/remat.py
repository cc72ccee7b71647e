"""RematScope: layers whose inner values are computed again in the backward pass, not kept.

That takes about a third more time and less memory, and changes no bit: random numbers are drawn
again from the same keys, and what a layer assigns to its state is assigned once.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from distgrad.core import recording, tree
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.keras.activations import goes_with_bias
from distgrad.keras.layers.masking import carry_mask
from distgrad.ops.recompute import recompute_grad

_MODES = ("full", "activations", "larger_than", "list_of_layers")


class RematMode(NamedTuple):
    """Which of the layers made in a scope are computed again."""

    mode: str
    output_size_threshold: int
    layer_names: frozenset[str]


class _Now(threading.local):
    """The scopes that this thread is in, and whether it runs a layer that is computed again."""

    def __init__(self) -> None:
        self.scopes: list[RematMode | None] = []
        self.inside = False


_now = _Now()


class RematScope:
    """Context: layers made in it compute their inner values again (``keras.RematScope``).

    ``mode`` is "full" (all of them), "activations" (their activation functions alone),
    "larger_than" (those with more than ``output_size_threshold`` outputs a sample),
    "list_of_layers" (those named in ``layer_names``), or None, for none. Of layers within layers
    the outermost is taken; a model leaves it to its layers. Raises ValueError for another mode.
    """

    def __init__(
        self,
        mode: str | None = "full",
        output_size_threshold: int = 1024,
        layer_names: Iterable[str] | None = None,
    ) -> None:
        if mode is not None and mode not in _MODES:
            raise ValueError(f"mode is one of {', '.join(_MODES)} or None, not {mode!r}")
        self._mode: RematMode | None = None
        if mode is not None:
            self._mode = RematMode(mode, output_size_threshold, frozenset(layer_names or ()))

    def __enter__(self) -> RematScope:
        _now.scopes.append(self._mode)
        return self

    def __exit__(self, *exc: object) -> None:
        _now.scopes.pop()


def current() -> RematMode | None:
    """What the innermost scope says."""
    return _now.scopes[-1] if _now.scopes else None


def call(
    layer: Any, run: Callable[..., Any], inputs: tuple, kwargs: dict[str, Any], again: Callable
) -> Any:
    """``run(inputs, kwargs)`` of a layer made in a scope.

    ``again()`` is a context that stands for the call around it, when it is made once more.
    """
    mode: RematMode = layer._remat_mode
    if mode.mode == "larger_than" and layer._output_size is None:
        return _measured(layer, run, inputs, kwargs)  # no call before has shown it
    if _now.inside or not any(isinstance(r, GradientTape) for r in recording.stack()):
        return run(inputs, kwargs)
    if mode.mode == "activations":
        return _with_activation(layer, run, inputs, kwargs)
    if mode.mode == "list_of_layers" and layer.name not in mode.layer_names:
        return run(inputs, kwargs)
    if mode.mode == "larger_than" and layer._output_size <= mode.output_size_threshold:
        return run(inputs, kwargs)
    return _Call(layer, run, again).made(inputs, kwargs)


class _Call:
    """A call of a layer that is made again in the backward pass."""

    def __init__(self, layer: Any, run: Callable[..., Any], again: Callable) -> None:
        self._layer, self._run, self._again = layer, run, again
        self._below = list(layer._layers_below())
        self._first: list[Any] = []  # the outputs of the first call, until they are wrapped

    def made(self, inputs: tuple, kwargs: dict[str, Any]) -> Any:
        given = inputs, kwargs
        sources = tree.flatten(given)
        before = [len(layer._added_losses) for layer in self._below]
        compute = functools.partial(self._compute, sources)
        tensors = iter(recompute_grad(compute)(given))
        outputs = self._first.pop()

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            tensor = carry_mask(leaf, next(tensors))
            behind = getattr(leaf, "_logits", None)
            if behind is not None:
                tensor._logits = behind[0], next(tensors)
            return tensor

        result = tree.map_structure(wrapped, outputs)
        for layer, start in zip(self._below, before, strict=True):
            layer._added_losses[start:] = [next(tensors) for _ in layer._added_losses[start:]]
        return result

    def _compute(self, sources: list[Any], given: Any) -> list[Tensor]:
        """The tensors of the outputs, the logits behind them, then the losses that were added."""
        for source, leaf in zip(sources, tree.flatten(given), strict=True):
            if leaf is not source and isinstance(leaf, Tensor):
                carry_mask(source, leaf)
        args, kwargs = given
        before = [len(layer._added_losses) for layer in self._below]
        once_more = self._first_is_over
        _now.inside, outer = True, _now.inside
        try:
            if once_more:
                with self._again():
                    outputs = self._run(args, dict(kwargs))
            else:
                outputs = self._run(args, dict(kwargs))
        finally:
            _now.inside = outer
        found: list[Tensor] = []
        for leaf in tree.flatten(outputs):
            if isinstance(leaf, Tensor):
                found.append(leaf)
                behind = getattr(leaf, "_logits", None)
                found += [] if behind is None else [behind[1]]
        for layer, start in zip(self._below, before, strict=True):
            found += layer._added_losses[start:]
            if once_more:
                del layer._added_losses[start:]
        if not once_more:
            self._first_is_over = True
            self._first.append(outputs)
        return found

    _first_is_over = False


def _with_activation(
    layer: Any, run: Callable[..., Any], inputs: tuple, kwargs: dict[str, Any]
) -> Any:
    kept = layer.__dict__.get("activation")
    if not callable(kept) or goes_with_bias(kept):
        return run(inputs, kwargs)

    def activation(x: Any) -> Any:
        behind: list[Any] = []

        def noted(x: Any) -> Any:
            out = kept(x)
            behind.append(getattr(out, "_logits", None))
            return out

        out = recompute_grad(noted)(x)
        if behind[0] is not None and behind[0][1] is x:
            out._logits = behind[0]
        return out

    layer.__dict__["activation"] = activation
    try:
        return run(inputs, kwargs)
    finally:
        layer.__dict__["activation"] = kept


def _measured(layer: Any, run: Callable[..., Any], inputs: tuple, kwargs: dict[str, Any]) -> Any:
    """Runs a layer and notes how many outputs it gives for each sample, in all."""
    outputs = run(inputs, kwargs)
    shapes = [t._data.shape[1:] for t in tree.flatten(outputs) if isinstance(t, Tensor)]
    layer._output_size = sum(map(math.prod, shapes))
    return outputs
