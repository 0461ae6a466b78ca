"""What answers of the HTTP interface are described with: schemas in short words, and what many requests share."""

from __future__ import annotations

from typing import Any, TypeAlias

from spiral_core.wire import codec

Json: TypeAlias = dict[str, Any]

REF = "#/components/schemas/{name}"


def of(kind: type) -> Json:
    """Refer to the schema of a struct."""
    return {"$ref": REF.format(name=kind.__name__)}


def list_of(items: Json) -> Json:
    """Give the schema of a list."""
    return {"type": "array", "items": items}


def object_of(**properties: Json) -> Json:
    """Give the schema of an object that has just these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def or_null(schema: Json) -> Json:
    """Give the schema of what may be missing."""
    return {"anyOf": [schema, {"type": "null"}]}


def answer(words: str, schema: Json, example: object) -> Json:
    """Describe an answer, with an example."""
    return {"description": words, "content": {"application/json": {"schema": schema, "example": codec.plain(example)}}}


def error(words: str, example: str) -> Json:
    """Describe an answer that says why not."""
    return answer(words, object_of(error=TEXT), {"error": example})


TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
SWITCH: Json = {"type": "boolean"}
NUMBER: Json = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
VALUE: Json = {"anyOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}, {"type": "null"}]}

NO_TOKEN = error("No token, or a wrong one.", "this needs the token")
FOREIGN = error("A role that may not do this, or a foreign page.", "a viewer may not steer")
TOO_OFTEN = error("Too many requests at once.", "too many requests at once; try again later")
NO_RUN = error("No such run, or no such series.", "there is no run 'x'; GET api/runs lists those that there are")
BAD_QUESTION = error("A parameter makes no sense.", "width: Input should be greater than or equal to 1")
BROKEN = error("The store cannot be used; try again.", "the data of run r cannot be read: disk I/O error")
USUAL: Json = {"401": NO_TOKEN, "403": FOREIGN, "429": TOO_OFTEN, "503": BROKEN}
"""Answers that every request may get."""
