"""The whole road: courier, server, viewer, command, acknowledgement; over real websockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from spiral_core.wire.limits import CLOSE_REPLACED
from spiral_core.wire.messages import (
    Ack,
    Command,
    CommandRecord,
    EngineHello,
    EngineWelcome,
    Frame,
    Merged,
    RunChanged,
    Tick,
)
from spiral_core.wire.requests import EXPIRED

from .asking import ask, give, play, shown, stored
from .house import House, courier, dial, serving, viewer
from .saying import ack, asking, frame, heat_maps, opening, status


def test_a_command_travels_from_the_page_to_the_engine_and_back(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            assert engine.seen == [EngineWelcome(protocol=1, stored=-1)]
            await engine.say(*opening(), frame(4, 1), frame(5, 2))
            await stored(engine, 5)
            snapshot = await shown(page, "")
            assert (snapshot.run.id, snapshot.run.status, snapshot.seq) == ("r1", "training", 5)
            assert snapshot.columns[0].steps.numpy().tolist() == [1, 2]
            await engine.say(frame(6, 3))
            await page.next_of(Frame, lambda message: message.seq == 6)
            assert [type(message) for message in page.seen[-2:]] == [Tick, Frame]
            answer = await give(house, asking())
            assert (answer.status_code, answer.json()["state"]) == (202, "accepted")
            accepted = await page.next_of(CommandRecord)
            assert (accepted.state, accepted.number) == ("accepted", 1)
            command = await engine.next_of(Command)
            assert (command.number, command.id, command.sets[0].value) == (1, "c1", 0.2)
            await engine.say(ack(7, 1, "c1"))
            applied = await page.next_of(CommandRecord)
            assert (applied.state, applied.step, applied.changes[0].in_force) == ("applied", 7, 0.2)
            assert any(isinstance(message, Ack) for message in page.seen)
            knob = (await ask(house, "/api/runs/r1/knobs"))["knobs"][0]
            assert (knob["value"], knob["since"]) == (0.2, 7)

    play(story())


def test_a_snapshot_holds_frames_that_are_not_on_disk_yet_and_deltas_follow_without_gap_or_repetition(
    house: House,
) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)

            async def train() -> None:
                for seq in range(4, 604):
                    await engine.say(frame(seq, seq))
                    if seq % 20 == 0:
                        await asyncio.sleep(0.001)

            training = asyncio.create_task(train())
            await asyncio.sleep(0.02)
            steps: list[float] = []
            snapshot = await shown(page)
            steps += snapshot.columns[0].steps.numpy().tolist() if snapshot.columns else []
            while not steps or steps[-1] < 603:
                for message in await page.packet():
                    if isinstance(message, Frame):
                        steps.append(message.step)
                    elif isinstance(message, Merged):
                        steps += message.columns[0].steps.numpy().tolist()
            await training
            assert steps == list(range(4, 604))
            numbers = [message.number for message in page.seen if isinstance(message, Tick)]
            assert numbers == sorted(set(numbers))
            assert numbers[-1] == snapshot.number + 604 - 4 - len(snapshot.columns[0].steps.numpy())

    play(story())


def test_a_repeated_command_is_given_once_and_answered_with_the_same_record(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            answers = await asyncio.gather(*(give(house, asking()) for _ in range(8)))
            assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
            assert len({answer.json()["number"] for answer in answers}) == 1
            await give(house, asking("c2"))
            commands = [await engine.next_of(Command) for _ in range(2)]
            assert [command.id for command in commands] == ["c1", "c2"]

    play(story())


def test_a_reconnected_engine_gets_what_it_has_not_answered_once_more_and_repeats_no_message(house: House) -> None:
    async def story() -> None:
        async with viewer(house) as page:
            async with courier(house) as engine:
                await engine.say(*opening(), frame(4, 1))
                await stored(engine, 4)
                await shown(page)
                for name in ("c1", "c2", "c3"):
                    await give(house, asking(name))
                    await engine.next_of(Command)
                await engine.say(ack(5, 1, "c1"))
                await page.next_of(CommandRecord, lambda record: record.state == "applied")
                await stored(engine, 5)
            gone = await page.next_of(RunChanged)
            assert (gone.run.status, gone.run.connected) == ("lost", False)
            await give(house, asking("c4"))
            async with courier(house) as engine:
                assert engine.seen == [EngineWelcome(protocol=1, stored=5)]
                back = await page.next_of(RunChanged)
                assert (back.run.status, back.run.connected) == ("training", True)
                await engine.say(frame(4, 1), ack(5, 1, "c1"), frame(6, 2))
                commands = [await engine.next_of(Command) for _ in range(3)]
                assert [command.number for command in commands] == [2, 3, 4]
                await page.next_of(Frame, lambda message: message.seq == 6)
                frames = [message.seq for message in page.seen if isinstance(message, Frame)]
                assert frames == [6]
                records = [message for message in page.seen if isinstance(message, CommandRecord)]
                assert [record.id for record in records if record.state == "applied"] == ["c1"]
                await stored(engine, 6)
            points = (await ask(house, "/api/runs/r1/series?names=train/s0"))["series"][0]
            assert points["steps"] == [1, 2]

    play(story())


def test_a_newer_connection_replaces_the_older_one(house: House) -> None:
    async def story() -> None:
        async with courier(house) as old:
            await old.say(*opening())
            await stored(old, 3)
            async with courier(house) as new:
                assert await old.closed() == CLOSE_REPLACED
                await new.say(frame(4, 1))
                await stored(new, 4)
                assert (await ask(house, "/api/runs/r1"))["connected"] is True

    play(story())


def test_an_older_incarnation_cannot_take_over(house: House) -> None:
    async def story() -> None:
        async with courier(house, incarnation=1) as engine, dial(house, "engine") as stale:
            await engine.say(*opening(incarnation=1))
            await stored(engine, 3)
            await stale.say(EngineHello(protocol=1, run="r1", incarnation=0))
            assert await stale.closed() == CLOSE_REPLACED

    play(story())


def test_a_server_that_is_started_again_keeps_its_history(tmp_path: Path) -> None:
    async def before(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening(), frame(4, 1, [0.5, float("nan")]), heat_maps(5, 1))
            await stored(engine, 5)
            await give(house, asking("c1"))
            await give(house, asking("c2", 7.0))
            await engine.next_of(Command)
            await engine.say(ack(6, 1, "c1"), frame(7, 8))
            await stored(engine, 7)
            await give(house, asking("c3"))

    async def after(house: House) -> None:
        (line,) = (await ask(house, "/api/runs"))["runs"]
        assert (line["id"], line["status"], line["connected"], line["step"]) == ("r1", "lost", False, 8)
        async with viewer(house) as page:
            snapshot = await shown(page)
            assert [record.state for record in snapshot.commands] == ["applied", "rejected", "accepted"]
            assert (snapshot.knobs[0].value, snapshot.rev, snapshot.seq) == (0.2, 1, 7)
            assert snapshot.columns[1].steps.numpy().tolist() == [1, 8]
            assert np.isnan(snapshot.columns[1].values.numpy()[0])
            assert snapshot.heat_maps is not None
            assert (await give(house, asking("c1"))).status_code == 200
            async with courier(house) as engine:
                assert engine.seen == [EngineWelcome(protocol=1, stored=7)]
                assert (await engine.next_of(Command)).id == "c3"
                assert (await page.next_of(RunChanged)).run.status == "training"
                await engine.say(frame(8, 9))
                await page.next_of(Frame)

    for story in (before, after):
        with serving(tmp_path) as house:
            play(story(house))


def test_an_ended_run_takes_no_commands_and_those_that_wait_expire_for_good(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            await give(house, asking("c1"))
            await engine.say(status(4, "finished"))
            ended = await page.next_of(CommandRecord, lambda record: record.state == "expired")
            assert ended.reason == EXPIRED
            answer = await give(house, asking("c2"))
            assert answer.status_code == 409
            assert "finished" in answer.json()["error"]
            await stored(engine, 4)
        assert (await ask(house, "/api/runs"))["runs"][0]["status"] == "finished"

    async def resumed(house: House) -> None:
        """What has expired is never handed to a later incarnation."""
        (record,) = (await ask(house, "/api/runs/r1/commands"))["commands"]
        assert (record["state"], record["reason"]) == ("expired", EXPIRED)
        async with courier(house, incarnation=1) as engine:
            await engine.say(*opening(incarnation=1))
            await stored(engine, 3)
            assert (await give(house, asking("c3"))).status_code == 202
            assert (await engine.next_of(Command)).id == "c3"

    with serving(tmp_path) as house:
        play(story(house))
    with serving(tmp_path) as house:
        play(resumed(house))


def test_what_a_mute_engine_has_not_answered_waits_for_the_one_that_resumes_its_run(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            await give(house, asking("c1"))

    async def resumed(house: House) -> None:
        assert (await ask(house, "/api/runs/r1/commands"))["commands"][0]["state"] == "accepted"
        async with courier(house, incarnation=1) as engine:
            await engine.say(*opening(incarnation=1))
            assert (await engine.next_of(Command)).id == "c1"
            await engine.say(status(4, "stopped", incarnation=1))
            await stored(engine, 4)
        assert (await ask(house, "/api/runs/r1/commands"))["commands"][0]["state"] == "expired"

    with serving(tmp_path) as house:
        play(story(house))
    with serving(tmp_path) as house:
        play(resumed(house))


def test_a_command_for_a_revision_that_has_passed_is_told_what_is_in_force(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening(), ack(4, 1, "guard"))
            await stored(engine, 4)
            stale = await give(house, replace(asking("c1"), expected_rev=0))
            assert stale.status_code == 409
            assert (stale.json()["rev"], stale.json()["values"]) == (1, {"optim.lr": 0.2})
            assert "revision 1 is in force" in stale.json()["error"]
            await shown(page)
            request = replace(asking("c1"), expected_rev=1, at_step=40, supersede=True)
            answer = await give(house, request)
            assert answer.status_code == 202
            told = {"expected_rev": 1, "at_step": 40, "supersede": True, "steps": 1, "state": "accepted"}
            assert told.items() <= answer.json().items()
            command = await engine.next_of(Command)
            assert (command.expected_rev, command.at_step, command.supersede) == (1, 40, True)
            await engine.say(ack(5, command.number, "c1", state="superseded", by=9))
            record = await page.next_of(CommandRecord, lambda one: one.state != "accepted")
            assert (record.state, record.by) == ("superseded", 9)

    play(story())
