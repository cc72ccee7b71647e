"""Examples read from their bytes: ``tf.io.parse_example`` and its like.

Texts are bytes, as they lie in the examples. Where examples differ in the number of values, a
feature says whether the shorter ones are filled up, or what they have is sparse or ragged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.texts import as_bytes
from distgrad.data.calling import as_tensors
from distgrad.data.dataset import Dataset
from distgrad.data.features import FixedLenFeature, FixedLenSequenceFeature, VarLenFeature
from distgrad.data.files import matching
from distgrad.data.messages import decode_error, message
from distgrad.data.ragged_features import INDICES, RaggedFeature, Read
from distgrad.data.records import TFRecordDataset
from distgrad.data.specs import tried_size

_KINDS = (FixedLenFeature, FixedLenSequenceFeature, VarLenFeature, RaggedFeature)
_DTYPES = {"int64_list": "int64", "float_list": "float32", "bytes_list": "string"}

Place = Callable[[int], str]  # how an error names an example


def parse_single_example(
    serialized: Any, features: Mapping[str, Any], example_names: Any = None, name: Any = None
) -> dict[str, Any]:
    """The features of one example, given as the bytes of a ``tf.train.Example``: by their names.

    ``features`` has a `FixedLenFeature`, `FixedLenSequenceFeature`, `VarLenFeature` or
    `RaggedFeature` for each. Raises InvalidArgumentError for bytes that are no example, for a
    feature without default that is not there, and for one of another dtype or number of values;
    ValueError for other ``features``.
    """
    return parse_example(_one(serialized), features, example_names)


def parse_example(
    serialized: Any, features: Mapping[str, Any], example_names: Any = None, name: Any = None
) -> dict[str, Any]:
    """`parse_single_example` of a vector of examples: arrays with a first axis over them."""
    if not features:
        raise ValueError(f"Argument `features` cannot be None or falsy. Got {features}")
    rows = _rows(serialized)
    maps = [each.features.feature for each in _parsed("Example", rows)]
    place = _places(example_names, rows.ndim)
    return _result(rows.ndim, {k: _column(k, f, maps, place) for k, f in sorted(features.items())})


def parse_single_sequence_example(
    serialized: Any,
    context_features: Mapping[str, Any] | None = None,
    sequence_features: Mapping[str, Any] | None = None,
    example_name: Any = None,
    name: Any = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The context and the sequences of one ``tf.train.SequenceExample``, given as its bytes.

    ``context_features`` are as for `parse_single_example`, ``sequence_features`` a
    `FixedLenSequenceFeature`, `VarLenFeature` or `RaggedFeature` each. Raises what that does.
    """
    wanted = context_features, sequence_features
    return parse_sequence_example(_one(serialized), *wanted, example_name)[:2]


def parse_sequence_example(
    serialized: Any,
    context_features: Mapping[str, Any] | None = None,
    sequence_features: Mapping[str, Any] | None = None,
    example_names: Any = None,
    name: Any = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """`parse_single_sequence_example` of a vector of them, and the lengths of all sequences.

    Shorter sequences are filled up by 0 or "".
    """
    if not (context_features or sequence_features):
        raise ValueError("context_features and sequence_features are None, but one is needed")
    rows = _rows(serialized)
    parsed, place = _parsed("SequenceExample", rows), _places(example_names, rows.ndim)
    maps = [each.context.feature for each in parsed]
    context = {k: _column(k, f, maps, place) for k, f in sorted((context_features or {}).items())}
    sequences: dict[str, Any] = {}
    lengths: dict[str, np.ndarray] = {}
    for key, feature in sorted((sequence_features or {}).items()):
        ragged = isinstance(feature, RaggedFeature) and not feature.partitions
        fixed = isinstance(feature, FixedLenSequenceFeature) and feature.default_value is None
        sparse = isinstance(feature, VarLenFeature)
        if not (ragged or fixed or sparse):
            raise ValueError(f"Unsupported {feature} for the sequence {key!r}")
        lists = [each.feature_lists.feature_list for each in parsed]
        if (size := tried_size()) is not None:
            steps = [[feature.zeros(1)] * size] * len(lists)
        else:
            steps = [_steps(key, feature, each, place, n) for n, each in enumerate(lists)]
        if ragged:
            from distgrad.ragged.row import together

            sequences[key] = together(list(map(feature.together, steps)))
            continue
        if sparse:
            parts = [feature.together(each) for each in steps]
            sequences[key] = SparseTensor.stacked(parts)
            continue
        lengths[key] = np.array([len(each) for each in steps], np.int64)
        sequences[key] = feature.together([[v for step in each for v in step] for each in steps])
    result = partial(_result, rows.ndim)
    return result(context), result(sequences), result(lengths)


def make_batched_features_dataset(
    file_pattern: Any,
    batch_size: int,
    features: Mapping[str, Any],
    reader: Callable[..., Dataset] | None = None,
    label_key: str | None = None,
    reader_args: Sequence[Any] | None = None,
    num_epochs: int | None = None,
    shuffle: bool = True,
    shuffle_buffer_size: int = 10000,
    shuffle_seed: int | None = None,
    prefetch_buffer_size: int | None = None,
    reader_num_threads: int | None = None,
    parser_num_threads: int | None = None,
    sloppy_ordering: bool = False,
    drop_final_batch: bool = False,
) -> Dataset:
    """Batches of the examples in files that match a pattern, as dicts of their ``features``.

    ``reader`` is `TFRecordDataset` unless given. With a ``label_key`` pairs of a dict and that
    feature. Examples come in a random order, without end unless ``num_epochs`` says so;
    ``reader_num_threads`` files are read in turns, and the settings of other threads change
    nothing. Raises ValueError for no file, and for a label that is no feature.
    """
    if label_key is not None and label_key not in features:
        raise ValueError(f"`label_key` must be one of the features: {list(features)}")
    paths = matching(file_pattern)
    files = Dataset.from_tensor_slices(paths)
    if shuffle:
        files = files.shuffle(len(paths), shuffle_seed)
    read = reader or TFRecordDataset
    found = files.interleave(lambda path: read(path, *(reader_args or ())), reader_num_threads)
    if shuffle:
        found = found.shuffle(shuffle_buffer_size, shuffle_seed)
    if num_epochs != 1:
        found = found.repeat(num_epochs)
    found = found.batch(batch_size, drop_final_batch or num_epochs is None)

    def parsed(examples: Any) -> Any:
        columns = parse_example(examples, features)
        return columns if label_key is None else (columns, columns.pop(label_key))

    return found.map(parsed).prefetch(prefetch_buffer_size or 1)


def _rows(serialized: Any) -> np.ndarray:
    """The bytes of an example, or a vector of them. Raises InvalidArgumentError for others."""
    try:
        array = np.asarray(as_bytes(serialized))
    except ValueError:
        raise InvalidArgumentError(f"an example is given as its bytes: {serialized!r}") from None
    if array.ndim > 1:
        raise InvalidArgumentError(
            f"Expected serialized to be a scalar or vector, got shape: {list(array.shape)}"
        )
    return array


def _one(serialized: Any) -> np.ndarray:
    rows = _rows(serialized)
    if rows.ndim:
        raise ValueError("Input serialized must be a scalar")
    return rows


def _parsed(kind: str, rows: np.ndarray) -> list[Any]:
    read, parsed = message(kind).FromString, []
    for data in rows.flat:
        try:
            parsed.append(read(data))
        except decode_error():
            short = data[:100]
            raise InvalidArgumentError(f"Could not parse example input, value: {short}") from None
    return parsed


def _places(names: Any, ndim: int) -> Place:
    given = None if names is None else np.ravel(names)
    if given is None and not ndim:
        return lambda number: ""
    return lambda n: f"Name: {'<unknown>' if given is None else given[n]}, Index: {n}, "


def _result(ndim: int, columns: dict[str, Any]) -> dict[str, Any]:
    return as_tensors(columns if ndim else {key: _first(each) for key, each in columns.items()})


def _first(column: Any) -> Any:
    if isinstance(column, SparseTensor):
        indices, shape = column.indices.numpy()[:, 1:], column.dense_shape.numpy()[1:]
        return SparseTensor(indices, column.values, shape)
    if not isinstance(column, Composite):
        return column[0, ...]
    row = column[0]
    return row.to_tensor() if hasattr(row, "to_tensor") and None not in row.shape else row


def _column(key: str, feature: Any, maps: list[Any], place: Place) -> Any:
    """A feature of all examples, with a first axis over them."""
    if not isinstance(feature, _KINDS):
        raise ValueError(f"Unsupported {type(feature).__name__} {feature} for key {key!r}")
    if isinstance(feature, FixedLenSequenceFeature) and not feature.allow_missing:
        raise ValueError("Unsupported: FixedLenSequenceFeature requires allow_missing to be True.")
    if (size := tried_size()) is not None:
        parts = 1 if isinstance(feature, FixedLenFeature) else size
        return feature.together([feature.zeros(parts)] * len(maps))
    missing, rows = feature.missing, []
    for number, each in enumerate(maps):
        name = getattr(feature, "value_key", None) or key
        values = _values(name, feature, each.get(name), place, number)
        if values is None:
            values = missing
        if values is None:
            raise InvalidArgumentError(
                f"{place(number)}Feature: {key} (data type: {feature.kind.name}) is required but "
                "could not be found."
            )
        rows.append(values)
    if not isinstance(feature, RaggedFeature):
        return feature.together(rows)

    def reader(number: int) -> Read:
        def read(name: str) -> Any:
            found = _values(name, INDICES, maps[number].get(name), place, number)
            return np.array(() if found is None else found, np.int64)

        return read

    return feature.together(rows, list(map(reader, range(len(maps)))))


def _values(key: str, feature: Any, found: Any, place: Place, number: int) -> Any:
    """The values in a message; None where it has none. Raises InvalidArgumentError for others."""
    field = None if found is None else found.WhichOneof("kind")
    if field is None:
        return None
    if field != feature.field:
        raise InvalidArgumentError(
            f"{place(number)}Key: {key}.  Data types don't match. Data type: {_DTYPES[field]} but "
            f"expected type: {feature.kind.name}"
        )
    values = getattr(found, field).value
    if fault := feature.fault(values):
        raise InvalidArgumentError(f"{place(number)}Key: {key}.  {fault}")
    return values


def _steps(key: str, feature: Any, lists: Any, place: Place, number: int) -> list[Any]:
    """The values of each part of a sequence. Raises InvalidArgumentError where some are missing."""
    if key not in lists:
        if feature.allow_missing:
            return []
        raise InvalidArgumentError(
            f"{place(number)}Feature list: {key} is required but could not be found: allow_missing "
            "lets examples do without it"
        )
    steps: list[Any] = []
    for found in lists[key].feature:
        values = _values(key, feature, found, place, number)
        if isinstance(feature, (RaggedFeature, VarLenFeature)):
            steps.append(() if values is None else values)
            continue
        if values is None or len(values) != feature.total:
            raise InvalidArgumentError(
                f"{place(number)}Feature list: {key}, Index: {len(steps)}.  Number of values != "
                f"expected.  Values size: {len(values or ())} but feature shape: "
                f"{list(feature.sizes)}"
            )
        steps.append(values)
    return steps
