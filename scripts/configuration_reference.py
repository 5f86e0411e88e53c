"""Writes docs/reference/configuration.md out of the settings classes: every key, in their order.

`python scripts/configuration_reference.py` writes the file; the tests say when it is stale.
"""

from __future__ import annotations

import inspect
import pathlib
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping

import pydantic

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/configuration.md"
_HEAD = """\
# config.yaml

<!-- Written by scripts/configuration_reference.py out of the settings classes; not by hand. -->

Every key, its type and what it is where nobody sets it. A key that does not exist is an error that
names it. In the environment `SKILLMESH__SECTION__KEY=value` wins over the file; what is not a plain
value is written as JSON there. `SKILLMESH_CONFIG` names another file than `config.yaml`. A running
process keeps the settings it was started with.
"""
_TABLE = "| key | type | default | what it is |\n| --- | --- | --- | --- |\n"
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def page() -> str:
    """The whole page."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from shared import settings

    parts = [_HEAD]
    for name, field in settings.Settings.model_fields.items():
        section = typing.cast(type[pydantic.BaseModel], field.annotation)
        parts.append(f"\n## {name}\n\n{_plain(inspect.getdoc(section) or '')}\n\n{_TABLE}")
        parts += [f"{row}\n" for row in _rows(section, field.get_default(), "")]
    return "".join(parts)


def _rows(section: type[pydantic.BaseModel], values: object, before: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        default = getattr(values, name, field.get_default(call_default_factory=True))
        key, inner = f"{before}{name}", field.annotation
        meaning = _plain(field.description or "")
        if inspect.isclass(inner) and issubclass(inner, pydantic.BaseModel):
            yield f"| `{key}` | section | | {meaning} |"
            yield from _rows(inner, default, f"{key}.")
            continue
        bounds = "".join(
            f" {sign} {getattr(one, bound):g}"
            for one in field.metadata
            for bound, sign in _BOUNDS.items()
            if getattr(one, bound, None) is not None
        )
        value = "must be given" if field.is_required() else _value(default)
        yield f"| `{key}` | {_type(inner)}{bounds} | {value} | {meaning} |"
        for entry in _sections_in(inner):
            yield from _rows(entry, None, f"{key}.NAME." if _is_mapping(inner) else f"{key}[].")


def _type(annotation: object) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inside[0])
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in inside)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(one) for one in inside if one is not type(None)) + " or none"
    if _is_mapping(annotation):
        return f"{_type(inside[1])} by name"
    if origin in (tuple, list):
        return f"list of {_type(inside[0])}"
    if inspect.isclass(annotation):
        if issubclass(annotation, pydantic.BaseModel):
            return "section"
        if issubclass(annotation, pathlib.Path):
            return "path"
        names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
        return names.get(annotation, annotation.__name__)
    return "text"


def _value(default: object) -> str:
    if default in (None, "", (), {}):
        return "none" if default is None else "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, Mapping):
        return ", ".join(f"`{name}`" for name in default)
    if isinstance(default, tuple | list):
        return ", ".join(f"`{one}`" for one in default)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _sections_in(annotation: object) -> list[type[pydantic.BaseModel]]:
    found = typing.get_args(annotation)
    return [one for one in found if inspect.isclass(one) and issubclass(one, pydantic.BaseModel)]


def _is_mapping(annotation: object) -> bool:
    origin = typing.get_origin(annotation)
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _plain(text: str) -> str:
    """In one line, with nothing that would end a cell of the table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
