"""What `plm evaluate` and `plm compare` do beside their steps: benchmarks of any model, and what the gate can find."""

from __future__ import annotations

import argparse
from typing import Any

from components.errors import UserError

COMMANDS = {"evaluate": "--model M --suite S", "compare": "--models A B --suite S"}  # without a pipeline


def add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    """The options that take the place of a pipeline's config; other steps' commands have none."""
    if name not in COMMANDS:
        return
    place = "a directory, owner/name@commit, models:/NAME@ALIAS, or run:PIPELINE"
    if name == "evaluate":
        command.add_argument("--power", action="store_true", help="what the gate can find with the held-out rows")
        command.add_argument("--model", metavar="M", help=f"measure this model, without a pipeline: {place}")
    else:
        command.add_argument("--models", nargs="+", metavar="M", help=f"compare these with the first of them: {place}")
    command.add_argument(
        "--suite", action="append", default=[], metavar="S", help="of configs/eval, or a YAML; may repeat"
    )
    command.add_argument("--task", action="append", default=[], metavar="T", help="an lmms-eval task; may repeat")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N questions of each task")
    command.add_argument("--to", metavar="DIR", help="where figures and samples are written")


def is_meant(arguments: argparse.Namespace) -> bool:
    """Whether no step is asked for. UserError where neither a step's config nor a model is named."""
    if arguments.command not in COMMANDS:
        return False
    if models_of(arguments) or (getattr(arguments, "power", False) and arguments.config is not None):
        return True
    if arguments.config is None:
        raise UserError(f"plm {arguments.command} needs a config, or {COMMANDS[arguments.command]}")
    return False


def models_of(arguments: argparse.Namespace) -> list[str]:
    """The models that a command names in the place of a pipeline's own."""
    if arguments.command == "compare":
        models: list[str] = arguments.models or []
        return models
    return [arguments.model] if arguments.model else []


def run(arguments: argparse.Namespace) -> Any:
    """Measure the models that are named, or say what the gate can find."""
    if not (models := models_of(arguments)):
        return say_power(arguments)
    from components.pipeline.config_loading import load_config
    from components.preflight.benchmarks import names
    from components.preflight.start import refuse
    from flows.commands.benchmark import evaluate_models, with_what

    if arguments.command == "compare" and len(models) < 2:
        raise UserError("--models needs two models or more")
    named, overrides = arguments.config, arguments.overrides
    if named and "=" in named:  # the first override, where no file is named
        named, overrides = None, [named, *overrides]
    config = with_what(load_config(named, overrides), arguments.suite, arguments.task, arguments.limit)
    arguments.state_dir = config.tracking.state_dir
    refuse(finding for finding in names(config) if finding.step == "evaluate_base")
    return evaluate_models(config, models, arguments.to)


def say_power(arguments: argparse.Namespace) -> Any:
    """A line for each rule of the config's gate."""
    from components.pipeline.config_loading import load_config
    from components.pipeline.storage import store_of
    from flows.run.foresight import foreseen, last_dataset

    config = load_config(arguments.config, arguments.overrides)
    arguments.state_dir = config.tracking.state_dir
    store = store_of(config)
    found = foreseen(config, store, last_dataset(config, store))
    for each in found:
        print(f"{'warning: ' if each.warns else ''}{each.text}")
    if not found:
        print("gate is null: every model becomes the champion")
    return [vars(each) for each in found]
