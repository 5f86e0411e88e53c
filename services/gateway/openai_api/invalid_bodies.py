"""What is wrong with the body of a request, in OpenAI's words.

Knows pydantic's errors, and nothing about what the fields mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNSUPPORTED = "unsupported"
"""Type of the pydantic errors of parameters that are known and not offered."""


def first_fault(faults: Sequence[Mapping[str, Any]], body: object) -> tuple[str, str, str]:
    """The parameter, the message and OpenAI's code of the first fault.

    Args:
        faults: of pydantic, each with its place and its type.
        body: that they were found in.
    """
    fault = faults[0]
    kind, place = str(fault["type"]), tuple(fault["loc"])
    if kind == "json_invalid" or place in ((), ("body",)):
        if kind == "missing" or body is None:
            return (
                "",
                "you must send a JSON object as the body (content-type: application/json)",
                ("invalid_json"),
            )
        return (
            "",
            (
                "We could not parse the JSON body of your request: expected one JSON object, with "
                "content-type: application/json"
            ),
            "invalid_json",
        )
    param = _path(place[1:] if place[0] == "body" else place, body)
    if kind == "extra_forbidden":
        return param, f"Unrecognized request argument supplied: {param}", "unknown_parameter"
    if kind == "missing":
        return param, f"you must provide the parameter {param}", "missing_required_parameter"
    message = f"Invalid value for {param}: {str(fault['msg']).removeprefix('Value error, ')}"
    if kind == UNSUPPORTED:
        return param, message, "unsupported_value"
    is_type = kind.endswith("_type") or kind == "int_from_float"
    return param, message, "invalid_type" if is_type else "invalid_value"


def _path(place: Sequence[int | str], body: object) -> str:
    """`messages[0].content`: without the names that pydantic gives to the members of a union."""
    path, here = "", body
    for at, part in enumerate(place):
        if isinstance(part, int):
            path += f"[{part}]"
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and (part in here or at == len(place) - 1):
            path += f".{part}" if path else part
            here = here.get(part)
    return path
