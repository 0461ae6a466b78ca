"""The command that trains: ``spiral train``, also ``python -m spiral_core.cli``."""

from __future__ import annotations

import gc
import inspect
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from spiral_core import cli_journal, cli_sync
from spiral_core.errors import ConfigError, SpiralError
from spiral_core.wire.training import Kind, TrainingOption, training_options

if TYPE_CHECKING:
    from spiral_core.engine.config import RunConfig
    from spiral_core.engine.state import RunState
    from spiral_core.engine.step import Evaluation, UpdateReport
    from spiral_core.link.runner import Options, Result

EXIT_BAD_USE = 2
EXIT_FAILED = 1
EXIT_GUARDED = 4
"""A guard has ended the run, with a checkpoint to go on from."""
EXIT_INTERRUPTED = 130
"""As a shell reports a process that Ctrl-C has ended."""

USAGE_ERROR: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
"""What typer raises for arguments that it cannot read; it has a public name for one kind only."""

TRAIN_HELP = """Train a run, alone or watched by a server.

The run is kept under LOGDIR/<run id>. With --server it can be watched and steered in the browser while it trains; a
server that is away never slows training down, and gets what it missed when it is back.

Examples:

  spiral train --data fashion --epochs 10

  spiral train --data fashion --epochs 10 --seeds 5

  spiral train --data motif --model z_lstm

  spiral train --data needle --server http://127.0.0.1:8787

  spiral train --data needle --steps 600 --offline

  spiral train --data needle --gain 0.2 --lr 1e-3 --steps 600 --seed 7

  spiral train --data fashion --optimizer sgd --mode riemannian --lr 0.1 --clip-norm 5

  spiral train --data fashion --epochs 10 --schedule warmup-cosine --warmup-steps 31 --lr 0.05

  spiral train --data needle --steps 600 --auto-gain 0.7

  spiral train --data fashion --epochs 10 --precision float16

  spiral train --config runs/20260101-120000-fashion-ab12/config.json --seed 1

  spiral train --resume 20260101-120000-fashion-ab12

  spiral train --data needle --guard "when zspace.*.saturation > 0.3 for 50 set zspace.*.gain = 0.5"

A resumed run goes on from its newest checkpoint as if it had never stopped; RUN@STEP goes back to the checkpoint of a
step, and what was steered after it is given up.
"""

F = TypeVar("F", bound=Callable[..., None])


def reads_environment(command: F) -> F:
    """Let every option of a command also be given as ``SPIRAL_<OPTION>``, such as ``SPIRAL_LOGDIR``."""
    hints = get_type_hints(command, include_extras=True)
    for name, hint in hints.items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, typer.models.OptionInfo) and not extra.hidden:
                # typer keeps the first declaration where a default would stand.
                declared = (extra.default, *(extra.param_decls or ()))
                flags = [flag for flag in declared if isinstance(flag, str) and flag.startswith("--")]
                option = flags[0].split("/")[0].removeprefix("--") if flags else name
                extra.envvar = f"SPIRAL_{option.upper().replace('-', '_')}"
    command.__annotations__ = hints
    return command


_TYPES: dict[Kind, Any] = {"text": str, "number": float, "whole": int, "switch": bool, "lines": list[str]}


def _parameter(option: TrainingOption) -> inspect.Parameter:
    """Give what a run can be asked for as a parameter that typer reads."""
    kind = _TYPES[option.kind] if option.default is not None else _TYPES[option.kind] | None
    told = typer.Option(option.flag, min=option.least, max=option.most, help=option.help)
    return inspect.Parameter(
        option.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=option.default, annotation=Annotated[kind, told]
    )


def takes_training(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of training, before its own; they arrive as its keyword arguments.

    An option that the command declares itself, such as one with another default, stays its own.
    """
    own = inspect.signature(command, eval_str=True)
    named = {name: one for name, one in own.parameters.items() if one.kind is not one.VAR_KEYWORD}
    needed = {name: one for name, one in named.items() if one.default is one.empty}
    training = {option.name: _parameter(option) for option in training_options()}
    parameters = {**needed, **training, **named}

    @wraps(command)
    def taking(**values: object) -> None:
        command(**values)

    # Where typer looks for the options; only a wrapped function may say another signature than its own.
    vars(taking)["__signature__"] = own.replace(parameters=list(parameters.values()))
    taking.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return reads_environment(taking)


def given_by(context: typer.Context) -> dict[str, Any]:
    """Give the options that a person has written, as arguments or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name: source.name for name, source in sources.items() if source is not None}
    written = {name: context.params[name] for name, source in given.items() if source in ("COMMANDLINE", "ENVIRONMENT")}
    if "guards" in written:
        written["guards"] = _rules(written["guards"], split=given["guards"] == "ENVIRONMENT")
    return written


@takes_training
def train(
    context: typer.Context,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Train this many runs with seeds from --seed on.")] = 1,
    server: Annotated[str | None, typer.Option(help="Address of a Spiral server.")] = None,
    token: Annotated[str | None, typer.Option(help="Token that the server printed.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Write the run log only, for `spiral sync`.")] = False,
    logdir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    resume: Annotated[str | None, typer.Option(help="Go on with a run: RUN or RUN@STEP, an id or a path.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file; options given beside it win.")] = None,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
    report: Annotated[int | None, typer.Option(hidden=True)] = None,
    **_training: object,
) -> None:
    """Train a run, alone or watched by a server."""
    # Every field of the configuration, and every circumstance, is an option of the same name.
    given = given_by(context)
    if offline:
        if (source := context.get_parameter_source("server")) is not None and source.name == "COMMANDLINE":
            raise ConfigError("--offline writes the run log only: leave --server out, and give it to `spiral sync`")
        server = context.params["server"] = None
    asked = {**context.params, "guards": given.get("guards", [])}
    from spiral_core.link import report as reports

    try:
        _train({**asked, "token": token or (cli_sync.token_of(logdir, server) if server else "")}, set(given))
    except SpiralError as error:
        reports.refused(report, error)
        raise


def _train(asked: dict[str, Any], given: set[str]) -> None:
    """Train what was asked for; ``given`` are the options that a person has written."""
    # Imported here: the engine loads NumPy and Numba, and --help should not.
    from spiral_core import hugepages
    from spiral_core.engine.config import RunConfig
    from spiral_core.link import runner

    # What was imported stays; to search it for garbage would hold the training up for 50 ms now and then.
    gc.freeze()
    hugepages.collapse()
    say: Callable[[str], None] = (lambda _line: None) if asked["quiet"] else (lambda line: typer.echo(line))
    options = runner.Options(**{field: asked[field] for field in runner.Options.__dataclass_fields__})
    if (cores := os.cpu_count()) is not None and (options.threads or 0) > cores:
        typer.echo(
            f"spiral train: --threads {options.threads} is more than the {cores} cores of this machine, which makes "
            "steps slower: leave it out, or give at most as many",
            err=True,
        )
    fields = set(RunConfig.__struct_fields__)
    if asked["resume"] is None:
        _train_all(_planned(asked, given & fields), options, say)
        return
    settled = sorted(given & (fields | {"config", "epochs", "seeds", "no_guards"}))
    if settled:
        option = "--" + {"guards": "guard"}.get(settled[0], settled[0]).replace("_", "-")
        raise ConfigError(f"{option} cannot be given with --resume: the run keeps its configuration; steer it instead")
    start = runner.reopen(asked["resume"], options)
    for notice in start.notices:
        typer.echo(f"spiral train: {notice}", err=True)
    say(f"{_plainly(start.config)}, from step {start.state().step} of {start.directory.id}")
    result = runner.train_from(start, options, _Teller(say))
    _tell(result, say)
    _leave([result])


def _rules(more: list[str], *, split: bool) -> list[str]:
    """Give the lines of further guard rules; what a variable holds was split at each blank, and ``;`` parts rules."""
    return [line.strip() for line in " ".join(more).split(";") if line.strip()] if split else more


def _planned(asked: dict[str, Any], given: set[str]) -> list[RunConfig]:
    """Give the configurations to train, one for each seed."""
    from spiral_core.engine import config as configs
    from spiral_core.engine import guard_rules
    from spiral_core.link.resume import config_from

    if asked["config"] is None:
        fields = set(configs.RunConfig.__struct_fields__) - {"data", "steering", "guards"}
        make: Callable[..., RunConfig] = partial(configs.for_data, asked["data"])
        seed = asked["seed"]
    else:
        fields = given - {"guards"}
        base = config_from(asked["config"])
        make = partial(configs.changed, base)
        seed = asked["seed"] if "seed" in given else base.seed
    changes = {field: asked[field] for field in fields}
    if "momentum" in given and make(**changes).optimizer == "adam":
        raise ConfigError(
            "--momentum has no meaning for adam: leave it out, or choose --optimizer sgd", field="momentum"
        )
    if asked["no_guards"] or asked["guards"]:
        rules = () if asked["no_guards"] else make(**changes).guards
        changes["guards"] = guard_rules.merged(rules, asked["guards"])
    seeds = range(seed, seed + asked["seeds"])
    return [_plan(make, asked["epochs"], {**changes, "seed": one}) for one in seeds]


def _plan(make: Callable[..., RunConfig], epochs: int | None, changes: dict[str, object]) -> RunConfig:
    """Give a configuration with what was asked for; epochs become steps."""
    from spiral_core.engine.config import steps_per_epoch

    if epochs is None:
        return make(**changes)
    if changes.get("steps") is not None:
        raise ConfigError("give --epochs or --steps, not both", field="epochs")
    return make(**{**changes, "steps": epochs * steps_per_epoch(make(**changes))})


def _train_all(planned: list[RunConfig], options: Options, say: Callable[[str], None]) -> None:
    """Train one run after the other; sum up when there are several."""
    from spiral_core.link import runner

    results: list[Result] = []
    for config in planned:
        say(_plainly(config))
        results.append(runner.train(config, options, _Teller(say)))
        _tell(results[-1], say)
        if results[-1].status == "stopped":
            break
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    if len(planned) > 1 and accuracies:
        say(
            f"test accuracy over {len(accuracies)} of {len(planned)} seeds: "
            f"mean {fmean(accuracies):.4f}, lowest {min(accuracies):.4f}, highest {max(accuracies):.4f}"
        )
    _leave(results)


def _leave(results: list[Result]) -> None:
    """Tell a batch system that a guard has ended a run."""
    if any(result.detail for result in results):
        raise typer.Exit(EXIT_GUARDED)


def _tell(result: Result, say: Callable[[str], None]) -> None:
    """Say how a run ended, and on standard error what a person should know of it."""
    accuracy = "" if result.accuracy is None else f": test accuracy {result.accuracy:.4f}"
    say(f"{result.status} at step {result.step}{accuracy}  ({result.path})")
    if not result.delivered:
        typer.echo(f"spiral train: the server has not taken in everything; the log is kept: {result.path}", err=True)
    for word in (result.detail, result.trouble):
        if word:
            typer.echo(f"spiral train: {word}", err=True)


def _plainly(config: RunConfig) -> str:
    """Say in one line what is trained, and what the riemannian mode does to the weights beforehand."""
    from spiral_core.engine.config import for_data

    usual = for_data(config.data, model=config.model)
    optimizer = "" if config.optimizer == usual.optimizer else f", {config.optimizer}"
    mode = "" if config.mode == usual.mode else f", {config.mode} steps"
    schedule = "" if config.schedule == usual.schedule else f", schedule {config.schedule}"
    line = f"{config.model} on {config.data}, seed {config.seed}, lr {config.lr:g}{optimizer}{schedule}, "
    line += f"gain {config.gain:g}{mode}"
    if config.mode != "riemannian":
        return line
    radius = (-config.curvature) ** -0.5
    return f"{line}\n  weights are mapped into the ball of radius {radius:.4g} (exponential map at the origin)"


class _Teller:
    """Prints a line at each evaluation, and on standard error what a person should know of at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._diverged = False

    def __call__(self, state: RunState, report: UpdateReport, evaluation: Evaluation | None) -> None:
        if report.divergence is not None and not self._diverged:
            typer.echo(f"spiral train: {report.divergence}", err=True)
        self._diverged |= report.divergence is not None
        if evaluation is None:
            return
        epoch = state.dataset.epochs(report.step)
        self._say(
            f"  step {report.step:6d}  epoch {epoch:5.1f}  loss {report.loss:.4f}  "
            f"test loss {evaluation.loss:.4f}  test accuracy {evaluation.accuracy:.4f}"
        )


def application() -> typer.Typer:
    """Build the command line of the engine alone."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    register(app)
    return app


def register(app: typer.Typer) -> None:
    """Add the engine's commands to a command line."""
    app.command("train", help=TRAIN_HELP)(train)
    app.command("sync", help=cli_sync.SYNC_HELP)(reads_environment(cli_sync.sync))
    app.command("journal", help=cli_journal.JOURNAL_HELP)(reads_environment(cli_journal.journal))
    app.command("replay", help=cli_journal.REPLAY_HELP)(reads_environment(cli_journal.replay))


def run(app: typer.Typer, name: str) -> None:
    """Run a command line; an error of ours is one line and an exit status, not a traceback.

    The status is 2 for what the caller can mend in the command itself, and 1 for the rest, such as a full disk.
    """
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except USAGE_ERROR as error:
        where = getattr(error, "ctx", None)
        said = " ".join(error.format_message().split())
        typer.echo(f"{name}: {said}; see {where.command_path if where else name} --help", err=True)
        sys.exit(EXIT_BAD_USE)
    except SpiralError as error:
        typer.echo(f"{name}: {error}", err=True)
        sys.exit(EXIT_BAD_USE if isinstance(error, ValueError) else EXIT_FAILED)


if __name__ == "__main__":
    run(application(), "spiral")
