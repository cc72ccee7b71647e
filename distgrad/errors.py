"""Error classes (``tf.errors`` and those that end a job)."""

from distgrad.core.errors import (
    DataError,
    DesyncError,
    DivergedError,
    ExportError,
    InvalidArgumentError,
    JobError,
    MissingExtraError,
    NotFoundError,
    OpError,
    PeerLostError,
    PreemptedError,
    UsageError,
)

__all__ = [
    "DataError",
    "DesyncError",
    "ExportError",
    "DivergedError",
    "InvalidArgumentError",
    "JobError",
    "MissingExtraError",
    "NotFoundError",
    "OpError",
    "PeerLostError",
    "PreemptedError",
    "UsageError",
]
