"""The state of a model as nested dicts: its variables under the parts of their paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.variable import Variable

_FORMATS = {"backend_tensor": as_tensor, "numpy_array": lambda variable: variable.numpy()}


def state_tree(model: Any, value_format: str) -> dict[str, Any]:
    """The values of the variables of each kind. Raises ValueError for a path that two have."""
    if value_format not in _FORMATS:
        known = " or ".join(map(repr, _FORMATS))
        raise ValueError(f"value_format is {value_format!r}; it must be {known}")
    value = _FORMATS[value_format]
    return {
        kind: _nested({path: value(variable) for path, variable in paths.items()})
        for kind, paths in _variables_of(model).items()
    }


def set_state_tree(model: Any, tree: Mapping[str, Any]) -> None:
    """Assigns the values of a ``state_tree``; those of variables that are not there are left out.

    Raises ValueError for another kind of variables.
    """
    variables = _variables_of(model)
    for kind, values in tree.items():
        if kind not in variables:
            raise ValueError(f"{kind!r} is no kind of variables: {', '.join(variables)}")
        for path, value in _flat(values):
            if path in variables[kind]:
                variables[kind][path].assign(value)


def _variables_of(model: Any) -> dict[str, dict[str, Variable]]:
    """Each kind of variables, by path. Raises ValueError for a path that two of a kind have."""
    kinds = {
        "trainable_variables": model.trainable_variables,
        "non_trainable_variables": model.non_trainable_variables,
        "optimizer_variables": model.optimizer.variables if model.optimizer else [],
        "metrics_variables": model.metrics_variables,
    }
    found: dict[str, dict[str, Variable]] = {kind: {} for kind in kinds}
    for kind, variables in kinds.items():
        for variable in variables:
            if variable.path in found[kind]:
                raise ValueError(
                    f"two variables have the path {variable.path!r}: give the layers (metrics, "
                    "optimizers) names that differ"
                )
            found[kind][variable.path] = variable
    return found


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in flat.items():
        *parts, last = path.split("/")
        inner = root
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return root


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
