"""YAML 1.2 text as plain values that remember where they stand.

A `Document` is a tree of dict, list and scalars with a `Mark` for each of its entries, so that any
later complaint about an entry can name file, line and column, or the override that set it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from distgrad.config.errors import ConfigError

Path = tuple[str | int, ...]

# A section that names a class or a source: another name makes it another section.
_KIND_KEYS = ("type", "source")

_MOST_ENTRIES = 100_000  # few lines of aliases of aliases would fill the memory

# What the parser takes for more than text, though YAML 1.2 has no dates and no merge keys.
_TEXT_LIKE = ("timestamp", "merge", "value")


class Mark(NamedTuple):
    """Where an entry stands: ``text`` is read, ``order`` sorts, ``path`` is that of an override."""

    order: tuple[int, int, int]
    text: str
    path: Path | None = None


class Problem(NamedTuple):
    """What is wrong, and where."""

    mark: Mark
    path: Path
    message: str

    def __str__(self) -> str:
        # An override shows its key already.
        if not self.path or self.path == self.mark.path:
            return f"{self.mark.text}: {self.message}"
        return f"{self.mark.text}: {dotted(self.path)}: {self.message}"


class Override(NamedTuple):
    """A value set from outside of the file; ``label`` is what an error shows as its place."""

    path: Path
    value: Any
    label: str


@dataclass
class Document:
    """A YAML tree, the place of each entry, and the problems met while reading it."""

    value: Any
    marks: dict[Path, Mark]
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path) -> Mark:
        """The place of the entry, or of the nearest entry around it that exists."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def complain(self, path: Path, message: str) -> None:
        self.problems.append(Problem(self.mark(path), path, message))

    def raise_problems(self) -> None:
        """Raises ConfigError with every problem, sorted by place, if there is one."""
        if self.problems:
            ordered = sorted(self.problems, key=lambda problem: problem.mark.order)
            raise ConfigError(dict.fromkeys(map(str, ordered)))


def dotted(path: Path) -> str:
    """A path as it is written in overrides and errors: ``model.layers.1.units``."""
    return ".".join(map(str, path))


def parse(text: str, name: str, source: int = 0) -> Document:
    """Read one YAML 1.2 document; ``name`` is the file shown in errors, ``source`` sorts files.

    Duplicate keys, keys that are not text and foreign tags are problems of the document; text that
    is no YAML at all raises ConfigError with the parser's line and column.
    """
    reader = _Reader(name, source)
    try:
        return reader.read(text)
    except RecursionError:
        raise ConfigError([f"{name}: its sections stand too deep inside each other"]) from None
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = f"{name}:{at.line + 1}:{at.column + 1}" if at else name
        detail = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([f"{place}: not valid YAML: {detail}"]) from None
    except YAMLError as error:
        detail = " ".join(str(error).split())
        raise ConfigError([f"{name}: not valid YAML: {detail}"]) from None


def parse_override(text: str) -> Override:
    """Read ``key.sub=value``, the value as YAML 1.2. Raises ConfigError."""
    key, equals, value = text.partition("=")
    label = f"command line: {text}"
    if not equals or not all(key.split(".")):
        raise ConfigError([f"{label}: an override reads key.sub=value"])
    path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    try:
        document = parse(value, label)
    except ConfigError as error:
        detail = error.problems[0].partition("not valid YAML: ")[2]
        raise ConfigError([f"{label}: the value is not valid YAML: {detail}"]) from None
    if document.problems:
        raise ConfigError(f"{label}: {problem.message}" for problem in document.problems)
    return Override(path, document.value, label)


def apply_override(document: Document, override: Override, number: int) -> None:
    """Set one value in place; missing sections on the way to it are made."""
    mark = Mark((2, number, 0), override.label, override.path)
    here = document.value
    for depth, key in enumerate(override.path):
        above = override.path[:depth]
        if isinstance(here, list):
            if not isinstance(key, int) or key >= len(here):
                entries = f"{len(here)} entries, counted from 0"
                message = f"{dotted(above)} has no entry {key}, it has {entries}"
                document.problems.append(Problem(mark, override.path, message))
                return
        elif isinstance(here, dict):
            key = str(key)
        else:
            message = f"{dotted(above)} is not a section, so it has no key {key}"
            document.problems.append(Problem(mark, override.path, message))
            return
        path = (*above, key)
        if depth == len(override.path) - 1:
            here[key] = override.value
            for below in [known for known in document.marks if known[: depth + 1] == path]:
                del document.marks[below]
            document.marks[path] = mark
        else:
            if isinstance(here, dict) and here.get(key) is None:
                here[key] = {}
                document.marks[path] = mark
            here = here[key]


def merge(base: Document, top: Document) -> Document:
    """``top`` over ``base``: sections merge key by key, all else is replaced.

    A section that names another ``type`` or ``source`` replaces the whole of the base's section.
    """
    marks = dict(base.marks)

    def merged(below: Any, above: Any, path: Path) -> Any:
        if _same_kind(below, above):
            out = dict(below)
            for key, value in above.items():
                out[key] = merged(below[key], value, (*path, key)) if key in below else value
            return out
        for known in [known for known in marks if known[: len(path)] == path]:
            del marks[known]
        return above

    value = merged(base.value, top.value, ())
    return Document(value, marks | top.marks, base.problems + top.problems)


def _same_kind(below: Any, above: Any) -> bool:
    """Whether both are sections, and of one ``type`` or ``source`` if both name it."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return False
    return all(above[key] == below[key] for key in _KIND_KEYS if key in below and key in above)


def dump(value: Any) -> str:
    """Plain values as block-style YAML 1.2 that `parse` reads back unchanged."""
    yaml = YAML(typ="rt")
    yaml.width = 4096  # long text stays on its line
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue()


class _Reader:
    """Turns YAML nodes into values, noting places and problems."""

    def __init__(self, name: str, source: int) -> None:
        self.yaml = YAML(typ="safe", pure=True)
        self.name = name
        self.source = source
        self.document = Document(None, {(): self.place(0, 0)})
        self.count = 0
        self.open: list[Any] = []  # the nodes around the present one

    def read(self, text: str) -> Document:
        node = self.yaml.compose(text)
        if node is not None:
            self.document.value = self.build(node, ())
        return self.document

    def place(self, line: int, column: int) -> Mark:
        return Mark((self.source, line, column), f"{self.name}:{line + 1}:{column + 1}")

    def build(self, node: Any, path: Path) -> Any:
        if any(node is around for around in self.open):
            self.document.complain(path, f"the alias *{node.anchor} stands inside of itself")
            return None
        self.count += 1
        if self.count > _MOST_ENTRIES:
            place = self.place(node.start_mark.line, node.start_mark.column).text
            raise ConfigError(
                [f"{place}: its aliases make it longer than {_MOST_ENTRIES:,} values"]
            )
        if node.id == "scalar":
            return self.scalar(node, path)
        self.open.append(node)
        self.kind(node, path, ("map", "seq"))
        try:
            if node.id == "mapping":
                entries = self.keys(node, path)
                return {key: self.build(child, (*path, key)) for key, child in entries}
            for index, child in enumerate(node.value):
                self.note((*path, index), child)
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        finally:
            self.open.pop()

    def keys(self, node: Any, path: Path) -> Iterator[tuple[str, Any]]:
        """The entries of a mapping, each noted at the place of its key."""
        first: dict[str, Any] = {}
        for key_node, child in node.value:
            at = key_node.start_mark
            mark = self.place(at.line, at.column)
            key = key_node.value if key_node.id == "scalar" else None
            if key is None:
                problem = Problem(mark, path, "a key must be plain text")
                self.document.problems.append(problem)
            elif key in first:
                message = f"duplicate key, first set on line {first[key].line + 1}"
                self.document.problems.append(Problem(mark, (*path, key), message))
            elif key == "<<":
                message = "YAML 1.2 has no merge keys: write the keys out, or use base:"
                self.document.problems.append(Problem(mark, (*path, key), message))
            else:
                first[key] = at
                self.note((*path, key), key_node)
                yield key, child

    def note(self, path: Path, node: Any) -> None:
        self.document.marks[path] = self.place(node.start_mark.line, node.start_mark.column)

    def scalar(self, node: Any, path: Path) -> Any:
        kind = self.kind(node, path, ("null", "bool", "int", "float", "str", *_TEXT_LIKE))
        if kind == "str" or kind in _TEXT_LIKE:
            return node.value
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, KeyError):  # only an explicit tag can disagree with its text
            self.document.complain(path, f"{node.value!r} is not of the type that its tag says")
            return None

    def kind(self, node: Any, path: Path, known: tuple[str, ...]) -> str:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if kind not in known:
            self.document.complain(path, f"the tag {node.tag} is not for jobs; write plain values")
            return "str"
        return kind
