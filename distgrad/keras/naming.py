"""Names that objects have by themselves: after their kind, counting up in a process."""

from __future__ import annotations

_uids: dict[str, int] = {}


def get_uid(prefix: str = "") -> int:
    """1 for the first call with this prefix, and one more at each that follows."""
    _uids[prefix] = _uids.get(prefix, 0) + 1
    return _uids[prefix]


def auto_name(prefix: str) -> str:
    """``auc`` for the first that asks for it, ``auc_1`` for the next."""
    count = get_uid(prefix) - 1
    return f"{prefix}_{count}" if count else prefix


def start_anew() -> None:
    """Forgets who has asked."""
    _uids.clear()
