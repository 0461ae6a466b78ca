"""The description of the HTTP interface: an OpenAPI 3.1 document with every request, answer and error, and examples.

Paths and parameters come from the routes, schemas from the structs of the wire; only examples and words stand here.
"""

from __future__ import annotations

import msgspec
from fastapi import FastAPI

from spiral_core.wire import codec
from spiral_core.wire.messages import (
    CheckpointSaved,
    CommandRecord,
    CommandRequest,
    HeatMaps,
    RunStarted,
    StatusChanged,
    Strip,
)
from spiral_core.wire.parts import Change, KnobSpec, RunSummary, SeriesSpec, Setting
from spiral_core.wire.requests import LARGEST, MAX_ACTOR_CHARS, MAX_ID_CHARS, MAX_SETS
from spiral_core.wire.training import TrainingOption, TrainingRequest
from spiral_server.routes import steer
from spiral_server.routes.answers import (
    BAD_QUESTION,
    NO_RUN,
    NUMBER,
    REF,
    SWITCH,
    TEXT,
    USUAL,
    VALUE,
    WHOLE,
    Json,
    answer,
    error,
    list_of,
    object_of,
    of,
    or_null,
)
from spiral_server.routes.launch_answers import TRAINING, begun_answers, launch_answers
from spiral_server.routes.launches import EngineLine
from spiral_server.store.protocol import Damage

_STRUCTS = (
    CommandRequest,
    Damage,
    CommandRecord,
    CheckpointSaved,
    HeatMaps,
    RunStarted,
    StatusChanged,
    Strip,
    KnobSpec,
    RunSummary,
    SeriesSpec,
    EngineLine,
    TrainingOption,
    TrainingRequest,
)
_NOTE = (
    "Runs over HTTP. Every request shows the token: `Authorization: Bearer TOKEN`, or the cookie of the page. JSON has "
    'no NaN and no infinity; they are written as the texts "NaN", "Infinity" and "-Infinity". Accepted is not applied: '
    "what has become of a command is in its record, GET /api/runs/{run}/commands."
)

_REQUEST_WORDS = {
    "id": "Chosen by the client, 1 to 64 characters. The same id again gives the record of the first time.",
    "sets": "For the verb set: all of them come into force at the same boundary, or none does.",
    "steps": "For the verb step: updates to run before the run pauses.",
    "at_step": "Apply before this update, or before the first one after it; null: before the next one.",
    "expected_rev": "Apply only if this is the revision in force.",
    "supersede": "Take the place of earlier sets of the same knobs that would be applied at the same boundary.",
}

_REQUEST = CommandRequest(
    id="3f2b", verb="set", sets=[Setting(knob="optim.lr", value=3e-4)], expected_rev=11, at_step=500, actor="lab bench"
)
_ACCEPTED = CommandRecord(
    **{name: getattr(_REQUEST, name) for name in CommandRequest.__struct_fields__},
    run="20260301-101500-kq3f",
    number=12,
    time=1772360100.25,
    incarnation=0,
    state="accepted",
    by=None,
    step=None,
    changes=[],
    reason="",
    rev=None,
)
_APPLIED = msgspec.structs.replace(
    _ACCEPTED, state="applied", step=500, rev=12, changes=[Change(knob="optim.lr", old=1e-3, in_force=3e-4)]
)
_REFUSED = msgspec.structs.replace(
    _ACCEPTED, state="rejected", reason="optim.lr = 5000 is out of bounds: it takes a number between 1e-06 and 1000"
)
_STALE = "expected revision 11, but revision 14 is in force: look at the values, then ask again"


_SUMMARY = RunSummary(
    id="20260301-101500-kq3f",
    name="needle",
    status="training",
    step=480,
    total_steps=0,
    model="z_cam",
    data="needle",
    created=1772360000.0,
    updated=1772360100.0,
    detail="",
    connected=True,
)
_KNOB = KnobSpec(
    name="optim.lr",
    type="float",
    unit="",
    scale="log",
    low=1e-6,
    high=10.0,
    step=1.1,
    boundary="step",
    group="optimizer",
    help="Learning rate that the next update uses, in the mode in force.",
    value=3e-4,
    since=500,
)
_CHECKPOINT = CheckpointSaved(
    run="20260301-101500-kq3f",
    incarnation=0,
    seq=2210,
    step=2000,
    time=1772360500.0,
    file="step-00002000.safetensors",
    size=324808,
    digest="5c6ffbdd40d9556b73a21e63c3e0e904b1b0e5a9a8f5a8d5f0f0e2d9b2d1c3a4",
    reason="every",
    rev=12,
    files=["step-00001000.safetensors", "step-00002000.safetensors"],
)
_COLUMN = {"name": "train/loss", "index": 0, "steps": [1, 2], "values": [2.1, "NaN"], "reduced": False}


def _run_schema() -> Json:
    """Give the schema of one run: its line of the list, and more."""
    more = {
        "incarnation": WHOLE,
        "seq": WHOLE,
        "rev": WHOLE,
        "started": or_null(of(RunStarted)),
        "state": or_null(of(StatusChanged)),
        "series": list_of(of(SeriesSpec)),
        "strips": list_of(of(Strip)),
    }
    line = msgspec.json.schema_components([RunSummary], ref_template=REF)[1]["RunSummary"]["properties"]
    return object_of(**line, **more)


def _answers() -> dict[str, dict[str, dict[str, Json]]]:
    """Give the answers by path, method and status."""
    bare: Json = {"incarnation": 0, "seq": 512, "rev": 12, "started": None, "state": None, "series": [], "strips": []}
    of_run = {"404": NO_RUN, **USUAL}
    return {
        **launch_answers(),
        **_answers_of_a_run(of_run),
        "/api/runs": {
            "post": {**USUAL, **begun_answers()},
            "get": {
                "200": answer("Runs.", object_of(runs=list_of(of(RunSummary))), {"runs": [_SUMMARY]}),
                **USUAL,
            },
        },
        "/api/runs/{run}": {
            "get": {"200": answer("The run.", _run_schema(), {**codec.plain(_SUMMARY), **bare}), **of_run},
            "delete": _answers_to_deleting(of_run),
        },
        **_upkeep_answers(of_run),
    }


def _answers_of_a_run(of_run: dict[str, Json]) -> dict[str, dict[str, dict[str, Json]]]:
    """Give the answers about what a run holds."""
    points = object_of(name=TEXT, index=WHOLE, steps=list_of(WHOLE), values=list_of(NUMBER), reduced=SWITCH)
    damage = object_of(**{"from": WHOLE, "to": WHOLE, "reason": TEXT})
    records = object_of(commands=list_of(of(CommandRecord)))
    return {
        "/api/runs/{run}/series": {
            "get": {
                "200": answer(
                    "Points; where there are more than asked for, the least and the greatest of each bucket.",
                    object_of(series=list_of(points), damaged=list_of(damage)),
                    {"series": [_COLUMN], "damaged": []},
                ),
                "400": BAD_QUESTION,
                **of_run,
            }
        },
        "/api/runs/{run}/knobs": {
            "get": {
                "200": answer(
                    "Knobs.", object_of(knobs=list_of(of(KnobSpec)), rev=WHOLE), {"knobs": [_KNOB], "rev": 12}
                ),
                **of_run,
            }
        },
        "/api/runs/{run}/commands": {
            "get": {"200": answer("The journal.", records, {"commands": [_APPLIED]}), **of_run},
            "post": {**of_run, **_command_answers()},
        },
        "/api/runs/{run}/checkpoints": {
            "get": {
                "200": answer(
                    "Checkpoints that are on the engine's disk.",
                    object_of(checkpoints=list_of(of(CheckpointSaved))),
                    {"checkpoints": [_CHECKPOINT]},
                ),
                **of_run,
            }
        },
        "/api/runs/{run}/heatmaps": {
            "get": {
                "200": answer("Heat maps.", object_of(heat_maps=or_null(of(HeatMaps))), {"heat_maps": None}),
                "400": BAD_QUESTION,
                **of_run,
            }
        },
    }


def _answers_to_deleting(of_run: dict[str, Json]) -> dict[str, Json]:
    """Give the answers to the deletion of a run by status."""
    return {
        "200": answer("It is gone.", object_of(deleted=TEXT), {"deleted": "20260301-101500-kq3f"}),
        "409": error("It is being trained.", "run 'r' is being trained: stop it first"),
        **of_run,
    }


def _upkeep_answers(of_run: dict[str, Json]) -> dict[str, dict[str, dict[str, Json]]]:
    """Give the answers of what looks after a run, by path, method and status."""
    damaged = object_of(damaged=list_of(of(Damage)))
    bytes_used = object_of(before=WHOLE, after=WHOLE)
    verified = {"200": answer("What is damaged.", damaged, {"damaged": []}), "400": BAD_QUESTION}
    packed = {"200": answer("Its bytes.", bytes_used, {"before": 81920, "after": 40960})}
    return {
        "/api/runs/{run}/verify": {"post": {**verified, **of_run}},
        "/api/runs/{run}/compact": {"post": {**packed, **of_run}},
    }


def _command_answers() -> dict[str, Json]:
    """Give the answers to a command by status."""
    conflict = object_of(error=TEXT, rev=WHOLE, values={"type": "object", "additionalProperties": VALUE})
    conflict["required"] = ["error"]
    return {
        "200": answer("Given before under this id: what has become of it.", of(CommandRecord), _APPLIED),
        "202": answer("Accepted: on disk, and on its way to the engine.", of(CommandRecord), _ACCEPTED),
        "400": error("Not a command.", "not a command: Invalid enum value 'explode' - at `$.verb`"),
        "409": answer(
            "The run has ended, or moved on since `expected_rev`: then with the revision in force, and the values of "
            "the knobs that were asked for. The command is not in the journal.",
            conflict,
            {"error": _STALE, "rev": 14, "values": {"optim.lr": 1e-3}},
        ),
        "413": error("The body is too large.", "a command takes at most 65536 bytes"),
        "422": answer(
            "Refused at the door, with the reason; the journal has it.",
            object_of(error=TEXT, record=of(CommandRecord)),
            {"error": _REFUSED.reason, "record": _REFUSED},
        ),
        "429": error(
            "Too many commands wait for the engine, or too many requests at once.",
            "1000 commands wait for the engine of run 'r' already",
        ),
    }


def _components() -> Json:
    """Give the schemas of the structs as JSON carries them."""
    _, found = msgspec.json.schema_components(_STRUCTS, ref_template=REF)
    schemas: Json = dict(found)
    # Packed bytes on the wire, nested lists in JSON.
    nested = {"anyOf": [NUMBER, list_of({"$ref": REF.format(name="Nested")})]}
    schemas["Nested"] = {"title": "Nested", "description": "A number, or a list of the next axis.", **nested}
    schemas["Array"] = {
        "title": "Array",
        "description": "Nested lists of numbers.",
        **list_of(nested["anyOf"][1]["items"]),
    }
    for name in ("raw_min", "raw_max", "logit", "probability", "pointing", "energy_over_area"):
        listed = list_of(NUMBER)
        optional = name in ("pointing", "energy_over_area")
        schemas["HeatMaps"]["properties"][name] = or_null(listed) if optional else listed
    asked = schemas["CommandRequest"]["properties"]
    for name, words in _REQUEST_WORDS.items():
        asked[name]["description"] = words
    asked["id"] |= {"minLength": 1, "maxLength": MAX_ID_CHARS}
    asked["actor"] |= {"maxLength": MAX_ACTOR_CHARS}
    asked["sets"] |= {"maxItems": MAX_SETS}
    _bound_numbers([schemas["CommandRequest"], schemas["Setting"]])
    return schemas


def _bound_numbers(part: object) -> None:
    """Say within which bounds whole numbers are taken, wherever in a schema one stands."""
    if isinstance(part, dict):
        if part.get("type") == "integer":
            part |= {"minimum": 1 - LARGEST, "maximum": LARGEST - 1}
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            _bound_numbers(one)


def described(app: FastAPI) -> Json:
    """Give the OpenAPI document of an application."""
    document: Json = dict(app.openapi())
    answers = _answers()
    paths: Json = {}
    for path, methods in document["paths"].items():
        if path.startswith("/api/"):
            paths[path] = {method: {**told, "responses": answers[path][method]} for method, told in methods.items()}
    listed = paths[steer.PATH]
    listed["post"] = {
        "summary": steer.SUMMARY,
        "description": steer.DESCRIPTION,
        "operationId": "command",
        "parameters": listed["get"]["parameters"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": of(CommandRequest), "example": codec.plain(_REQUEST)}},
        },
        "responses": answers[steer.PATH]["post"],
    }
    paths["/api/runs"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": of(TrainingRequest), "example": TRAINING}},
    }
    document["info"] = {**document["info"], "description": _NOTE}
    document["paths"] = paths
    document["components"] = {
        "schemas": _components(),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"token": []}]
    return document
