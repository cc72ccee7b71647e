"""The jobs that come with distgrad, by their names."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_SCHEMA = "$schema=./schema.json"


def folder() -> Path:
    """Where they lie: in an installed package, or beside it where one works on distgrad itself."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def jobs() -> dict[str, Path]:
    """The files by name, such as ``digits``."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


def described(path: Path) -> str:
    """What a job says of itself: the first sentence of its comment."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if _SCHEMA not in line:
            lines.append(line.lstrip("# "))
    return " ".join(lines).partition(". ")[0].rstrip(".")


def template(path: Path) -> str:
    """The text of a job for another folder, where editors still find its schema."""
    text = path.read_text(encoding="utf-8")
    schema = (path.parent / "schema.json").resolve().as_uri()
    return text.replace(_SCHEMA, f"$schema={schema}")
