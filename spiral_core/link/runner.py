"""The training loop with its clock: draws the engine's decisions together with log, inbox and courier.

The order at each step boundary is fixed: commands are drained and applied (on disk first, then acknowledged), then
comes the pause or the pace, then the update, then what watches it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spiral_core import kernels, scheduling
from spiral_core.engine import guards, planned, step
from spiral_core.engine.config import RunConfig
from spiral_core.engine.notices import Notices
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import Evaluation, Probe, UpdateReport
from spiral_core.link import dump, frames, report, resume, spawn
from spiral_core.link.applied import AppliedLog
from spiral_core.link.compiling import Compiling
from spiral_core.link.environment import environment
from spiral_core.link.inbox import Inbox
from spiral_core.link.patientlog import PatientLog
from spiral_core.link.recorder import Recorder
from spiral_core.link.resume import Past, Start
from spiral_core.link.runlog import PARTS, RunLogWriter
from spiral_core.link.saving import Saver
from spiral_core.link.spawn import Line
from spiral_core.link.steering import Steering
from spiral_core.link.triggers import LOOK_SECONDS, FileTriggers
from spiral_core.nn import ZSpaceObservation
from spiral_core.telemetry.budget import ObservationBudget
from spiral_core.wire.parts import RunStatus

FINISH_SECONDS = 11.0
"""How long a finished run waits for its courier: a little longer than the courier waits for the server."""
CLOSE_STEPS = 5
"""Steps from a steer on that are observed whatever it takes: that is where people look."""
INTERRUPT_SECONDS = 1.0
"""How long an interrupted run waits for it: a person is waiting too, and the log keeps everything."""


@dataclass(frozen=True)
class Options:
    """Circumstances of a run that are not inputs of it."""

    logdir: Path
    name: str = ""
    server: str | None = None
    """Address of the server; None keeps the run to the run log."""
    token: str = ""
    threads: int | None = None
    """Compute threads; None means all cores but one."""
    dump_every: int = 0
    """Steps between inspection dumps; 0 means none."""
    start_paused: bool = False
    """Whether the run waits for ``resume`` or ``step`` before its first update."""
    lifeline: int | None = None
    report: int | None = None
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0 means none but the last one."""
    keep: int = 3
    """Checkpoints that stay."""
    keep_on_steer: bool = False
    """Whether one is also taken at each steer, and stays for good."""
    hash_every: int = 100
    """Steps between digests of the weights."""
    log_limit: int = 2000
    """Megabytes of run log, beyond which old frames are merged; 0 means no bound."""


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    run: str
    path: Path
    status: str
    step: int
    accuracy: float | None
    """Of the last evaluation."""
    delivered: bool
    """Whether the server has everything; True without a server."""
    trouble: str = ""
    """Why the last checkpoint could not be taken."""
    detail: str = ""
    """Why a guard ended it; empty where none did."""


Listener = Callable[[RunState, UpdateReport, Evaluation | None], None]


def train(config: RunConfig, options: Options, listen: Listener | None = None) -> Result:
    """Train a run from its configuration until it is finished or stopped.

    Parameters
    ----------
    config : RunConfig
    options : Options
    listen : callable, optional
        Called after each step with state, report and evaluation, such as to print progress.

    Raises
    ------
    SpiralError
        The run cannot start, or its disk fails. The run log then ends with the status ``failed`` where that can still
        be written.
    """
    scheduling.usual_turns()
    # Refused before anything is made: a server without an address, and guards that speak of what the run has not.
    if options.server is not None:
        spawn.engine_socket(options.server)
    guards.check(initial_state(config))
    if config.steering:
        planned.check(initial_state(config))
    return train_from(resume.begin(options.logdir, config, options.name), options, listen)


def reopen(reference: str, options: Options) -> Start:
    """Go on with a run, named as ``RUN`` or ``RUN@STEP``; see `resume.reopen`."""
    scheduling.usual_turns()
    if options.server is not None:
        # Refused before anything is changed.
        spawn.engine_socket(options.server)
    return resume.reopen(options.logdir, reference)


def train_from(start: Start, options: Options, listen: Listener | None = None) -> Result:
    """Train a run from where it begins, see `train`, and let go of it at the end."""
    directory, incarnation = start.directory, start.incarnation
    inbox = Inbox(lifeline=options.lifeline)
    inbox.catch_signals()
    limit = options.log_limit * 1_000_000
    thinner = spawn.Thinner(directory, limit)
    log = RunLogWriter(
        directory.frames_of(incarnation),
        run=directory.id,
        incarnation=incarnation,
        clock=time.time,
        part_bytes=limit // PARTS,
    )
    log.on_part = thinner.look
    line = Line(directory, incarnation=incarnation, server=options.server, token=options.token, inbox=inbox)
    report.started(options.report, directory.id)
    log.on_append = line.ring
    patient = PatientLog(log, directory.reserve)
    applied = AppliedLog(directory.applied)
    delivered = False
    try:
        if options.threads is not None:
            kernels.set_num_threads(options.threads)
        resume.note_environment(start)
        state = start.state()
        if options.start_paused:
            state.phase = "paused"
        state.own_entries = max(state.own_entries, start.answered.own)
        recorder = Recorder(patient, state, start.answered.acks)
        loop = _Loop(start, state, options, inbox, line, recorder, applied, patient, listen)
        status = loop.run(options.name or start.name)
    finally:
        applied.close()
        patient.close()
        log.close()
        thinner.finish()
        patience = INTERRUPT_SECONDS if inbox.interrupted else FINISH_SECONDS
        delivered = line.finish(patience)
        start.release()
    return Result(
        run=directory.id,
        path=directory.path,
        status=status,
        step=state.step,
        accuracy=loop.accuracy,
        delivered=delivered,
        trouble=loop.notices.unsaved,
        detail=loop.detail,
    )


class _Loop:
    """One run's loop; all decisions are the engine's, all waiting is here."""

    def __init__(
        self,
        start: Start,
        state: RunState,
        options: Options,
        inbox: Inbox,
        line: Line,
        recorder: Recorder,
        applied: AppliedLog,
        log: PatientLog,
        listen: Listener | None,
    ) -> None:
        self._state = state
        self._options = options
        self._inbox = inbox
        self._line = line
        self._recorder = recorder
        self._applied = applied
        self._log = log
        self._place = start.directory, start.incarnation
        self._begun = state.step
        files = FileTriggers(start.directory, start.answered.acks)
        self._steering = Steering(state, inbox, files, applied, recorder, start.answered.numbers, start.followed)
        self._past = Past(start)
        self._compiling = Compiling(state, recorder)
        self._dumps = start.directory.dumps
        self._run = start.directory.id
        self._listen = listen
        self._next_start = time.monotonic()
        self.notices = Notices()
        self._saver = Saver(
            start,
            state,
            recorder,
            self.notices,
            lambda: applied.position - len(self._past),
            checkpoint_every=options.checkpoint_every,
            keep=options.keep,
            keep_on_steer=options.keep_on_steer,
            hash_every=options.hash_every,
        )
        self._budget = ObservationBudget(state.telemetry_budget)
        self._closely = 0
        """Steps to come that are observed whatever it takes."""
        self._evaluated = 0
        """Updates that were done at the last evaluation."""
        self.accuracy: float | None = None
        self.detail = ""

    def run(self, name: str) -> str:
        recorder = self._recorder
        recorder.started(name, environment())
        try:
            if self._warm():
                self._steering.say(self._news())
                guards.begin(self._state)
                self._steps()
            if self._past.last_step is None:
                self._steering.finish()
            self._saver.finish()
        except BaseException as error:
            recorder.status("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._saver.close()
        status: RunStatus = "finished" if self._state.phase == "finished" else "stopped"
        recorder.status(status, "; ".join(filter(None, (self.detail, self.notices.unsaved))))
        return status

    def _repeating(self) -> str:
        last = self._past.last_step
        return "" if last is None else f"commands wait until step {last}, up to which the run had come"

    def _warm(self) -> bool:
        """Make the kernels of an update ready, saying so while it takes time; tell whether to go on."""
        self._compiling.first(self._drain)
        return not self._over()

    def _news(self) -> str:
        """Say what the beginning of the training is like, as far as it is not like the rest."""
        return "; ".join(filter(None, (self._repeating(), self._compiling.waiting())))

    def _over(self) -> bool:
        return self._inbox.interrupted or self._state.phase in ("finished", "stopped")

    def _steps(self) -> None:
        while True:
            self._drain()
            self._steering.tell()
            self._fulfil()
            self._line.mend(time.monotonic())
            if self._over():
                return
            if self._state.step > self._begun and self._compiling.another():
                self._steering.say(self._repeating())
            if self._state.phase == "paused":
                self._inbox.wait(LOOK_SECONDS)
            elif (ahead := self._next_start - time.monotonic()) > 0:
                self._inbox.wait(min(ahead, LOOK_SECONDS))
            else:
                self._steering.follow()
                if self._state.phase != "training":
                    continue
                if self._steering.steered:
                    self._saver.steered()
                self._step()

    def _step(self) -> None:
        state = self._state
        self._pace()
        begun = time.perf_counter()
        report = step.update(state)
        seconds = time.perf_counter() - begun
        probing = step.probe_due(state)
        observing = time.perf_counter()
        observations = self._observe(seconds, probing)
        observed = time.perf_counter() - observing
        probe = step.probe(state) if probing else None
        # Before guards and the evaluation, which takes commands: what these set belongs to the next update.
        self._dump(probe)
        guarded = self._guard(report)
        evaluation = self._evaluate() if step.evaluation_due(state) else None
        writing = time.perf_counter()
        self._recorder.frame(report, seconds, observations, evaluation, probe)
        if observations:
            self._budget.spend(observed + time.perf_counter() - writing)
        if probe is not None:
            self._recorder.heat_maps(probe)
        self._recorder.moved()
        self._saver.updated()
        self.notices.unrecorded = self._log.words
        if (detail := self.notices.after(report, guarded)) is not None:
            self._steering.say(detail)
        if self._listen is not None:
            self._listen(state, report, evaluation)

    def _observe(self, seconds: float, probing: bool) -> dict[str, ZSpaceObservation]:
        """Observe the Z-space layers where the budget has room for it, and where people look."""
        state, budget = self._state, self._budget
        budget.percent = state.telemetry_budget
        budget.earn(seconds, idle=max(0.0, 1 / state.rate - seconds) if state.rate > 0 else 0.0)
        if self._steering.steered:
            self._closely = CLOSE_STEPS
        close = self._closely > 0 or probing or state.phase == "finished"
        self._closely = max(0, self._closely - 1)
        if budget.percent == 0 or not (close or budget.allows()):
            return {}
        return {layer.name: layer.observe(state.training) for layer in state.z_layers}

    def _pace(self) -> None:
        """Set when the next step may start; a step that comes late does not make the following ones hurry."""
        now = time.monotonic()
        if self._state.rate > 0:
            interval = 1 / self._state.rate
            self._next_start = max(self._next_start + interval, now)
        else:
            self._next_start = now

    def _evaluate(self) -> Evaluation:
        tally = Evaluation()
        for batch in self._state.dataset.test_batches():
            tally = step.evaluate_batch(self._state, batch, tally)
            self._drain()
        self.accuracy = tally.accuracy
        self._evaluated = self._state.step
        return tally

    def _fulfil(self) -> None:
        """Do once, between two updates, what commands have asked for; a run that they have ended is evaluated too."""
        state = self._state
        wanted, state.wanted = state.wanted, set()
        last = state.phase == "finished" and state.config.evaluate_every > 0 and self._evaluated != state.step
        if self._inbox.interrupted:
            return
        if "checkpoint" in wanted:
            self._saver.save("asked")
        if "evaluate" in wanted or last:
            said = {} if state.step > self._begun else frames.values_at(*self._place, state.step)
            self._recorder.evaluation(self._evaluate(), said)

    def _dump(self, probe: Probe | None) -> None:
        every = self._options.dump_every
        if every and (self._state.step % every == 0 or self._steering.steered):
            dump.write(self._dumps, self._state, probe)
        self._steering.steered = False

    def _guard(self, report: UpdateReport) -> str:
        """Let the guards act on the step just done; give what they have to say."""
        decisions = guards.decide(self._state, report)
        # What was decided and put down before the run was interrupted is not done twice.
        self._catch_up()
        decisions = [decision for decision in decisions if not self._past.covers(decision.id)]
        if decisions and not self._applied.room():
            # A mark changes nothing, and is not worth the run; what changes it must be put down, or not be done.
            decisions = [decision for decision in decisions if decision.verb != "mark"]
        for decision in decisions:
            self._steering.enter(*guards.carry_out(self._state, decision))
            if decision.verb == "pause" and self._options.server is None:
                # Nobody may be there to look at it and to let it go on, and a batch job would wait for ever.
                self._state.phase = "stopped"
                self.detail = (
                    f"guard {decision.reason}; without a server the run does not wait for anyone: go on with spiral "
                    f"train --resume {self._run}"
                )
        return guards.notable(decisions)

    def _drain(self) -> None:
        rate = self._state.rate
        self._catch_up()
        if self._past.last_step is None:
            self._steering.drain()
        if self._state.rate != rate:
            self._next_start = time.monotonic()

    def _catch_up(self) -> None:
        self._steering.steered |= self._past.catch_up(self._state, self._recorder)
