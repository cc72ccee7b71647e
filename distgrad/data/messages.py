"""TensorFlow's messages of examples and tensors, through the optional package protobuf.

They are built of what ``example.proto``, ``feature.proto`` and ``tensor.proto`` say, so that they
are read and written as TensorFlow does.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from distgrad.core.errors import MissingExtraError

EXAMPLES = (
    *("BytesList", "FloatList", "Int64List", "Feature", "Features", "Example"),
    *("FeatureList", "FeatureLists", "SequenceExample"),
)
# The fields of each message: their numbers, names and types; [] are many, {} a map from texts.
_FIELDS: dict[str, dict[int, tuple[str, str]]] = {
    "BytesList": {1: ("value", "[bytes]")},
    "FloatList": {1: ("value", "[float]")},
    "Int64List": {1: ("value", "[int64]")},
    "Feature": {
        1: ("bytes_list", "BytesList"),
        2: ("float_list", "FloatList"),
        3: ("int64_list", "Int64List"),
    },
    "Features": {1: ("feature", "{Feature}")},
    "Example": {1: ("features", "Features")},
    "FeatureList": {1: ("feature", "[Feature]")},
    "FeatureLists": {1: ("feature_list", "{FeatureList}")},
    "SequenceExample": {1: ("context", "Features"), 2: ("feature_lists", "FeatureLists")},
    "TensorDim": {1: ("size", "int64"), 2: ("name", "string")},
    "TensorShapeProto": {2: ("dim", "[TensorDim]"), 3: ("unknown_rank", "bool")},
    "TensorProto": {
        1: ("dtype", "int32"),  # an enum, which is written alike
        2: ("tensor_shape", "TensorShapeProto"),
        3: ("version_number", "int32"),
        4: ("tensor_content", "bytes"),
        13: ("half_val", "[int32]"),
        5: ("float_val", "[float]"),
        6: ("double_val", "[double]"),
        7: ("int_val", "[int32]"),
        8: ("string_val", "[bytes]"),
        9: ("scomplex_val", "[float]"),
        10: ("int64_val", "[int64]"),
        11: ("bool_val", "[bool]"),
        12: ("dcomplex_val", "[double]"),
        16: ("uint32_val", "[uint32]"),
        17: ("uint64_val", "[uint64]"),
    },
}
_ONE_OF = {"Feature": "kind"}  # at most one of all fields is there


@cache
def message(name: str) -> Any:
    """The class of a message. Raises MissingExtraError without protobuf."""
    try:
        from google.protobuf import message_factory
    except ImportError:
        raise MissingExtraError(
            "tf.train.Example and what reads it need protobuf: pip install 'distgrad[records]'"
        ) from None
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"tensorflow.{name}"))


def decode_error() -> type[Exception]:
    """What messages raise for bytes that are none."""
    from google.protobuf.message import DecodeError

    return DecodeError


@cache
def _pool() -> Any:
    """The messages, apart from those that other packages know by the same names."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(
        name="distgrad.proto", package="tensorflow", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto

    def add(owner: Any, number: int, name: str, kind: str) -> None:
        field = owner.field.add(name=name, number=number)
        field.label = kinds.LABEL_REPEATED if kind[0] in "[{" else kinds.LABEL_OPTIONAL
        kind = kind.strip("[]")
        if kind[0] == "{":
            entry = owner.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            add(entry, 1, "key", "string")
            add(entry, 2, "value", kind.strip("{}"))
            kind = f"{owner.name}.{entry.name}"
        if kind[0].isupper():
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".tensorflow.{kind}"
        else:
            field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")

    for owner, fields in _FIELDS.items():
        made = file.message_type.add(name=owner)
        for number, (name, kind) in fields.items():
            add(made, number, name, kind)
        if owner in _ONE_OF:
            made.oneof_decl.add(name=_ONE_OF[owner])
            for field in made.field:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


class BytesList:
    """Makes the message of bytes, which may be given as datasets give them, too.

    TensorFlow's listings ask for ``numpy()`` of tensors alone, and texts are none here.
    """

    def __new__(cls, value: Iterable[Any] = ()) -> Any:
        return message("BytesList")(value=[getattr(v, "numpy", lambda v=v: v)() for v in value])

    @staticmethod
    def FromString(data: bytes) -> Any:
        """The message that the bytes are."""
        return message("BytesList").FromString(data)
