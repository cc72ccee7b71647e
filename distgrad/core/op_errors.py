"""The rest of TensorFlow's tree of errors, with its codes, for scripts that raise or catch them.

What distgrad raises itself stands in ``core.errors``.
"""

from __future__ import annotations

from distgrad.core.errors import InvalidArgumentError, NotFoundError, OpError

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

InvalidArgumentError.error_code = INVALID_ARGUMENT
NotFoundError.error_code = NOT_FOUND


class CancelledError(OpError):
    """An operation was cancelled."""

    error_code = CANCELLED


class UnknownError(OpError):
    """An error of no other class here."""

    error_code = UNKNOWN


class DeadlineExceededError(OpError):
    """An operation did not end in time."""

    error_code = DEADLINE_EXCEEDED


class AlreadyExistsError(OpError):
    """What was to be made is there already."""

    error_code = ALREADY_EXISTS


class PermissionDeniedError(OpError):
    """The caller may not do this."""

    error_code = PERMISSION_DENIED


class UnauthenticatedError(OpError):
    """The caller has not said who it is."""

    error_code = UNAUTHENTICATED


class ResourceExhaustedError(OpError):
    """Memory, or another resource, is used up."""

    error_code = RESOURCE_EXHAUSTED


class FailedPreconditionError(OpError):
    """Something that has to be done before was not."""

    error_code = FAILED_PRECONDITION


class AbortedError(OpError):
    """An operation was aborted, mostly for another one that ran at the same time."""

    error_code = ABORTED


class OutOfRangeError(OpError):
    """An iteration went past its end."""

    error_code = OUT_OF_RANGE


class UnimplementedError(OpError):
    """There is no such operation for these arguments."""

    error_code = UNIMPLEMENTED


class InternalError(OpError):
    """What must always hold does not."""

    error_code = INTERNAL


class UnavailableError(OpError):
    """A service cannot be reached now."""

    error_code = UNAVAILABLE


class DataLossError(OpError):
    """Data is lost or damaged for good."""

    error_code = DATA_LOSS


class OperatorNotAllowedInGraphError(TypeError):
    """Python was to decide by a tensor that has no value yet."""
