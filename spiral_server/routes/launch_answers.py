"""Answers of the requests that start, stop and list engines, as the description of the HTTP interface has them."""

from __future__ import annotations

from spiral_core.wire.training import TrainingOption, training_options
from spiral_server.routes.answers import NO_RUN, SWITCH, TEXT, USUAL, WHOLE, Json, answer, error, list_of, object_of, of
from spiral_server.routes.launches import EngineLine

_ENGINE = EngineLine(
    run="20260301-101500-kq3f",
    name="needle",
    origin="launched",
    status="training",
    connected=True,
    running=True,
    pid=4711,
    begun=1772360000.0,
    ended=None,
    exit=None,
    said=[],
)
TRAINING: Json = {"data": "fashion", "steps": 0, "lr": 0.02, "name": "a slower one"}


def begun_answers() -> dict[str, Json]:
    """Give the answers to the start of an engine by status."""
    named = object_of(error=TEXT, field=TEXT)
    lr = "lr = -1.0 cannot be used: it must be a finite number above 0"
    return {
        "201": answer("The engine begins; the run has this id.", of(EngineLine), _ENGINE),
        "400": answer("Not fields of a run; `field` names the one.", named, {"error": "unknown field", "field": "rl"}),
        "403": error("Asked for by a foreign page, or by one who may only watch.", "this origin may not steer"),
        "409": error("It cannot be now: the run is still trained, or its files are elsewhere.", "stop it first"),
        "413": error("The body is too large.", "a request takes at most 65536 bytes"),
        "422": answer("The engine does not take it; `field` names why.", named, {"error": lr, "field": "lr"}),
        "429": error("As many engines run as may.", "8 engines run already, and at most 8 may at once"),
    }


def launch_answers() -> dict[str, dict[str, dict[str, Json]]]:
    """Give the answers about engines by path, method and status."""
    listed = object_of(engines=list_of(of(EngineLine)), most=WHOLE, hindrance=TEXT, may_steer=SWITCH)
    engines = {"engines": [_ENGINE], "most": 8, "hindrance": "", "may_steer": True}
    options = {"options": training_options()[:1]}
    return {
        "/api/engines": {"get": {"200": answer("Engines.", listed, engines), **USUAL}},
        "/api/training": {
            "get": {"200": answer("Fields.", object_of(options=list_of(of(TrainingOption))), options), **USUAL}
        },
        "/api/runs/{run}/restart": {"post": {**USUAL, "404": NO_RUN, **begun_answers()}},
        "/api/runs/{run}/stop": {
            "post": {
                "202": answer("Told to stop.", of(EngineLine), _ENGINE),
                "409": error("It is not being trained.", "run r is not being trained"),
                "404": NO_RUN,
                **USUAL,
            }
        },
    }
