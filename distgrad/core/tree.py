"""Nests of lists, tuples, named tuples and dicts: take their leaves out and put others back.

The leaves of a dict come in the order of its sorted keys (of their insertion, where keys cannot
be sorted), as in TensorFlow, so that two dicts with the same keys always match. A TensorShape is
a leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_sorts: dict[type, str] = {}


def sort(nest: Any) -> str:
    """What ``nest`` is by its type: "sequence" (a list or a tuple), "mapping", or "" for a leaf.

    A type is looked at once: the calls of a model ask all the time.
    """
    kind = type(nest)
    known = _sorts.get(kind)
    if known is None:
        sequence, mapping = issubclass(kind, (list, tuple)), issubclass(kind, Mapping)
        known = _sorts[kind] = "sequence" if sequence else "mapping" if mapping else ""
    return known


def is_nested(structure: Any) -> bool:
    """Whether it is a list, tuple or dict; anything else is a leaf."""
    return sort(structure) != ""


def flatten(structure: Any, expand_composites: bool = False) -> list[Any]:
    """Leaves of a nest in order; anything that is not a list, tuple or dict is a leaf."""
    leaves: list[Any] = []
    _collect(structure, leaves)
    return leaves


def _collect(nest: Any, leaves: list[Any]) -> None:
    found = sort(nest)
    if not found:
        leaves.append(nest)
    elif found == "sequence":
        for item in nest:
            if _sorts.get(type(item)) == "":  # most of the time
                leaves.append(item)
            else:
                _collect(item, leaves)
    else:
        for key in keys(nest):
            _collect(nest[key], leaves)


def keys(nest: Mapping) -> list[Any]:
    """The keys of a mapping, sorted where they can be."""
    try:
        return sorted(nest)
    except TypeError:
        return list(nest)


def map_structure(
    func: Callable[..., Any],
    *structure: Any,
    check_types: bool = True,
    expand_composites: bool = False,
) -> Any:
    """The first nest with ``func(leaf, ...)`` in place of each leaf.

    Further nests are walked beside the first. Raises ValueError or TypeError where their
    structures differ (``assert_same_structure``), TypeError for a ``func`` that cannot be called.
    """
    if not callable(func):
        raise TypeError(f"map_structure needs a function, not {func!r}")
    if not structure:
        raise ValueError("map_structure needs at least one structure")
    for other in structure[1:]:
        assert_same_structure(structure[0], other, check_types=check_types)
    groups = zip(*map(flatten, structure), strict=True)
    return pack_sequence_as(structure[0], [func(*group) for group in groups])


def copied(structure: Any) -> Any:
    """A nest of its own, with the same leaves."""
    return pack_sequence_as(structure, flatten(structure))


def pack_sequence_as(structure: Any, flat_sequence: Any, expand_composites: bool = False) -> Any:
    """The structure of a nest with the items of ``flat_sequence``, in order, as its leaves.

    Raises ValueError where there are more or fewer items than leaves, TypeError for text.
    """
    if isinstance(flat_sequence, (str, bytes)):
        raise TypeError(f"a list of leaves is needed, not {flat_sequence!r}")
    leaves = list(flat_sequence)
    remaining = iter(leaves)
    try:
        packed = _pack(structure, remaining)
    except StopIteration:
        packed = remaining = iter([None])  # too few: the same message as for too many
    if next(remaining, _END) is not _END:
        raise ValueError(
            f"{len(leaves)} items do not fill a structure of {len(flatten(structure))} leaves"
        )
    return packed


unflatten = pack_sequence_as
_END = object()


def _pack(nest: Any, leaves: Any) -> Any:
    found = sort(nest)
    if not found:
        return next(leaves)
    if found == "sequence":
        # (A look at the table in place of a call: most items are leaves of a known type.)
        items = [next(leaves) if _sorts.get(type(i)) == "" else _pack(i, leaves) for i in nest]
        return like(nest, items)
    made = {key: _pack(nest[key], leaves) for key in keys(nest)}
    return like(nest, [(key, made[key]) for key in nest])


def like(nest: Any, items: list[Any]) -> Any:
    """A sequence or mapping of the type of ``nest`` with these items."""
    kind = type(nest)
    if hasattr(nest, "_fields"):
        return kind(*items)
    if isinstance(nest, Mapping):
        if hasattr(nest, "default_factory"):
            return kind(nest.default_factory, items)
        return kind(items) if isinstance(nest, dict) else dict(items)
    return kind(items)


def assert_same_structure(
    nest1: Any, nest2: Any, check_types: bool = True, expand_composites: bool = False
) -> None:
    """Raises ValueError where two nests differ in structure, TypeError where in types.

    Lists, tuples, named tuples (each by its name and fields) and mappings are types of their own;
    with ``check_types=False`` all but mappings are alike.
    """
    if is_nested(nest1) != is_nested(nest2):
        raise ValueError(f"structures differ: {nest1!r} beside {nest2!r}")
    if not is_nested(nest1):
        return
    if check_types and _kind(nest1) != _kind(nest2):
        raise TypeError(f"{type(nest1).__name__} beside {type(nest2).__name__}: {nest1!r}")
    if isinstance(nest1, Mapping) and isinstance(nest2, Mapping):
        if set(nest1) != set(nest2):
            raise ValueError(f"structures differ: keys {list(nest1)} beside {list(nest2)}")
        pairs = [(nest1[key], nest2[key]) for key in nest1]
    elif isinstance(nest1, Mapping) or isinstance(nest2, Mapping) or len(nest1) != len(nest2):
        raise ValueError(f"structures differ: {nest1!r} beside {nest2!r}")
    else:
        pairs = list(zip(nest1, nest2, strict=True))
    for one, two in pairs:
        assert_same_structure(one, two, check_types)


def _kind(nest: Any) -> Any:
    """What tells types of nests apart: a class, or the name and fields of a named tuple."""
    if hasattr(nest, "_fields"):
        return type(nest).__name__, nest._fields
    return next(kind for kind in (list, tuple, Mapping) if isinstance(nest, kind))


def flatten_up_to(shallow: Any, nest: Any) -> list[Any]:
    """What ``nest`` has at the place of each leaf of ``shallow``.

    Raises ValueError where ``nest`` is not at least as deep.
    """
    if not is_nested(shallow):
        return [nest]
    if not is_nested(nest) or len(shallow) != len(nest):
        raise ValueError(f"structures differ: {shallow!r} beside {nest!r}")
    if isinstance(shallow, Mapping):
        if set(shallow) != set(nest):
            raise ValueError(f"structures differ: keys {list(shallow)} beside {list(nest)}")
        pairs = [(shallow[key], nest[key]) for key in keys(shallow)]
    else:
        pairs = list(zip(shallow, nest, strict=True))
    return [part for one, two in pairs for part in flatten_up_to(one, two)]
