"""The `plm` command: the whole chain, each step by itself, and the pages that show what happened."""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import by_itself
from flows.terminal_log import show_warnings

if TYPE_CHECKING:
    from components.pipeline.config import PipelineConfig

READER_GONE = 141  # as a shell has it for SIGPIPE


class Terminated(BaseException):
    """SIGTERM, or SIGHUP of a terminal that was closed: everything that is open closes on the way out, as after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 0 only when all of it worked (all of them: `components.pipeline.failures`)."""
    status = _run(argv)
    if argv is None:  # the process ends: a last search for cycles in all that was imported takes a second
        gc.freeze()
    ray = sys.modules.get("components.processes.local_ray")  # only where one was started
    return ray.leave(status) if ray else status


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes KEY=VALUE only before the first option; people write them anywhere.
    if wrong := [
        text for text in rest if text.startswith("-") or "=" not in text or not hasattr(arguments, "overrides")
    ]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    show_warnings()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it
        signal.signal(signal.SIGHUP, _terminate)
    try:
        result = arguments.run(arguments)
        if arguments.json and result is not None:
            print(json.dumps(result))
        sys.stdout.flush()
    except (KeyboardInterrupt, Terminated):
        print("stopped; run the same command again: finished work is reused", file=sys.stderr)
        return 130
    except Exception as error:
        return READER_GONE if isinstance(error, BrokenPipeError) and _reader_gone() else _failed(error, arguments)
    return getattr(arguments, "status", 0)


def _reader_gone() -> bool:
    """Whether nobody reads our output any more, as after `plm … | head`; then nothing more is written."""
    output = sys.stdout.fileno()
    look = select.poll()
    look.register(output, 0)
    gone = any(event & select.POLLERR for _, event in look.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


def _failed(error: Exception, arguments: argparse.Namespace) -> int:
    """Say in one line what to mend, or that it is a fault of ours and where its traceback is; returns the status."""
    from components.pipeline.failures import report
    from components.terminal_text import one_line

    failure = report(error, Path(getattr(arguments, "state_dir", "runs")).absolute())
    for line in failure.lines:
        print(f"error: {one_line(line)}", file=sys.stderr)
    return failure.status


def _terminate(signum: int, frame: Any) -> None:
    raise Terminated


class Version(argparse.Action):
    """Print the version, and in a checkout the commit, when it is asked for; not before, since git is to be asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        from flows.run.parent_run import git_commit

        commit = git_commit()
        print(f"plm {version('plm-pipeline')}{f' (commit {commit[:12]})' if commit else ''}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plm",
        description="From a folder or a bucket of images to a benchmarked, registered vision-language model.",
        epilog="Exit status: 0 all of it worked; 2 something to mend, said in a line that begins with `error:`; 70 a fault of "
        "plm itself, whose traceback is in the file that is named; 130 stopped by a signal.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and the commit of the code")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    finetune = _command(commands, "finetune", "the whole chain, as Prefect's finetune-flow, in this process", _finetune)
    _config_arguments(finetune)
    finetune.add_argument(
        "--explain", action="store_true", help="say which steps would be reused and why not; run nothing"
    )
    finetune.add_argument("--refresh", action="append", default=[], metavar="STEP", help="run a step again; may repeat")
    for name, text in step_commands().items():
        step = _command(commands, name, text, _step)
        _config_arguments(step, optional=name in by_itself.COMMANDS)
        by_itself.add_arguments(step, name)
        step.add_argument("--refresh", action="store_true", help="run it although nothing that it depends on changed")
        step.add_argument("--mlflow-run", metavar="ID", help="record into this MLflow run instead of a new one")
        step.add_argument(
            "--order", metavar="URI", help="key and inputs as a flow has worked them out; used by its jobs"
        )
        step.add_argument("--progress", metavar="URI", help="leave progress there, for a process elsewhere that waits")
    keys = commands.add_parser("config", help="the keys of a config: default, type, meaning")
    keys.add_argument("key", nargs="?", help="one key, or a section such as train.guards")
    keys.add_argument("--page", action="store_true", help="all of them as a page in Markdown")
    keys.set_defaults(run=_keys, json=False)
    _export_arguments(_command(commands, "export", "a model directory of any layout into another", _export))
    _generate_arguments(_command(commands, "generate", "an answer from any model", _generate))
    verify = _command(commands, "verify", "compare what lies in the storage with its recorded sums", _verify)
    verify.add_argument("config", nargs="?", help="YAML file of a pipeline (default: all below the storage root)")
    verify.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    ui = _command(commands, "ui", "the MLflow and Prefect pages on the local stores", _ui)
    ui.add_argument("config", nargs="?", help="YAML file whose tracking.state_dir to show (default: ./runs)")
    ui.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    ui.add_argument(
        "--mlflow-port", type=int, metavar="PORT", help="instead of the config's tracking.mlflow_port (5000)"
    )
    ui.add_argument(
        "--prefect-port", type=int, metavar="PORT", help="instead of the config's tracking.prefect_port (4200)"
    )
    return parser


def step_commands() -> dict[str, str]:
    """The command of each step and what it does."""
    from components.pipeline.steps import STEPS

    return {name.replace("_", "-"): step.help for name, step in STEPS.items()}


def _command(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], Any]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    command.set_defaults(run=run)
    return command


def _config_arguments(command: argparse.ArgumentParser, optional: bool = False) -> None:
    command.add_argument("config", nargs="?" if optional else None, help="YAML file, a path or an fsspec URI")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for example train.lr=3e-4")


def _export_arguments(command: argparse.ArgumentParser) -> None:
    place = "a directory in any layout, or owner/name@commit on the Hugging Face hub"
    command.add_argument("--from", dest="source", required=True, metavar="DIR", help=place)
    command.add_argument("--to", required=True, metavar="DIR", help="new directory")
    command.add_argument("--format", required=True, choices=["hf", "meta", "own"])
    command.add_argument(
        "--tower", metavar="PT", help="the .pt of a vision tower, put before the language model of --from"
    )
    command.add_argument("--model", metavar="YAML", help="the model that --from and --tower become")
    command.add_argument(
        "--max-shard-gb", type=float, default=5.0, metavar="GB", help="largest file of tensors (default: 5)"
    )


def _generate_arguments(command: argparse.ArgumentParser) -> None:
    place = "a directory in any layout, or owner/name@commit on the Hugging Face hub"
    command.add_argument("--ckpt", required=True, metavar="DIR", help=place)
    command.add_argument("--media_type", required=True, choices=["image", "video", "text"])
    command.add_argument("--media_path", nargs="+", default=[], metavar="FILE", help="one image, several, or a video")
    command.add_argument("--question", required=True, help="several images may each have an <image> tag in it")
    for name in ("start_time", "end_time"):
        command.add_argument(f"--{name}", type=float, metavar="S", help="seconds into the video (default: all of it)")
    command.add_argument(
        "--max_gen_len", type=int, default=256, metavar="N", help="most tokens to answer (default: 256)"
    )
    command.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token")
    command.add_argument("--top_p", type=float, help="only the likeliest tokens of this total probability")
    command.add_argument("--top_k", type=int, help="only so many likeliest tokens, if there is no top_p")
    command.add_argument("--until", action="append", default=[], metavar="STR", help="end before this; may repeat")
    command.add_argument("--seed", type=int, default=0)


def _keys(arguments: argparse.Namespace) -> Any:
    from components.pipeline.config_reference import as_page, as_text, described, entries

    if arguments.page:
        print(as_page(entries()), end="")
    else:
        print(as_text(described(arguments.key) if arguments.key else entries()))


def _export(arguments: argparse.Namespace) -> Any:
    from components.model_files.export import export
    from flows.commands.export import show_export

    options = arguments.tower, arguments.model, arguments.max_shard_gb
    result = export(arguments.source, arguments.to, arguments.format, *options)
    show_export(result)
    return result


def _generate(arguments: argparse.Namespace) -> Any:
    from components.evaluate.ask import answer
    from flows.commands.generate import Screen

    names = ("start_time", "end_time", "max_gen_len", "temperature", "top_p", "top_k", "until", "seed")
    options = {name: getattr(arguments, name) for name in names}
    media = arguments.media_type, arguments.media_path
    screen = Screen()
    result = answer(arguments.ckpt, *media, arguments.question, **options, show=screen.show)
    screen.close(result["notes"])
    return result


def _config(arguments: argparse.Namespace) -> PipelineConfig:
    """The config that a command names; from here on a fault's traceback goes to its state folder."""
    from components.pipeline.config_loading import load_config

    config = load_config(arguments.config, arguments.overrides)
    arguments.state_dir = config.tracking.state_dir
    return config


def _finetune(arguments: argparse.Namespace) -> Any:
    from components.errors import UserError
    from flows.commands.finetune import explain_plan, run_finetune

    config = _config(arguments)
    if arguments.explain:
        plan, refused = explain_plan(config, arguments.refresh)
        if not refused:
            return plan
        if arguments.json:
            print(json.dumps(plan), flush=True)
        raise UserError("\n".join(refused))
    return run_finetune(config, arguments.refresh, arguments.config, arguments.overrides)


def _step(arguments: argparse.Namespace) -> Any:
    if by_itself.is_meant(arguments):
        return by_itself.run(arguments)
    from flows.commands.step import run_single_step

    config = _config(arguments)
    name = arguments.command.replace("-", "_")
    return run_single_step(name, config, arguments.refresh, arguments.mlflow_run, arguments.order, arguments.progress)


def _verify(arguments: argparse.Namespace) -> Any:
    from components.pipeline.config_loading import load_config
    from flows.commands.verify import verify_storage

    named, overrides = arguments.config, arguments.overrides
    if named and "=" in named:  # the first override, where no file is named
        named, overrides = None, [named, *overrides]
    result = verify_storage(load_config(named, overrides), one_pipeline=named is not None)
    arguments.status = 1 if result["damaged"] else 0
    return result


def _ui(arguments: argparse.Namespace) -> None:
    from components.pipeline.config import PipelineConfig
    from flows.commands.ui import serve_pages

    config = _config(arguments) if arguments.config else PipelineConfig()
    serve_pages(config, arguments.mlflow_port, arguments.prefect_port)


if __name__ == "__main__":
    from flows import cli  # not this copy of it, whose classes are others than those that `plm` and its parts have

    sys.exit(cli.main())
