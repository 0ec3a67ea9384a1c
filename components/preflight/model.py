"""Whether the weights to start from are there, of a size that somebody asked for, and leave room for an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from components.base.settings import ModelConfig
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.steps import file_digest
from components.preflight.data import Peek, peek
from components.preflight.finding import Finding
from plm_model.family import RANDOM, part
from plm_model.model_directory.description import architecture_of

STEP = "base"
SETTINGS = ("config.json", "params.json", "original/params.json")  # one of which a model directory has
OF_A_STAGE = re.compile(r"(?P<size>plm_\w+)_stage_(?P<number>\d)")  # as the shipped stages name the one before
LARGE = 500_000_000  # parameters: nobody starts so many at random by the way


def weights(config: PipelineConfig) -> Iterator[Finding]:
    """`model.init`, `model.tower` and `model.tokenizer` name what is there, or one commit of the hub."""
    model = config.model
    if model.init != RANDOM:
        yield from (Finding(text, step=STEP) for text in _checkpoint(model.init))
    if model.tower and not Path(model.tower).is_file():
        yield Finding(f"model.tower: {model.tower}: no such file", step=STEP)
    try:
        file_digest(model.tokenizer, "model.tokenizer")
    except UserError as error:
        yield Finding(str(error), step=STEP)


def _checkpoint(place: str) -> Iterator[str]:
    from plm_model.model_directory.hub import HubError, pinned

    folder = Path(place)
    if not folder.exists():
        if stage := OF_A_STAGE.fullmatch(folder.name):
            before = f"configs/stage_{stage['number']}/{stage['size']}.yaml"
            yield f"model.init: {place}: no such directory; `plm finetune {before}` makes it: name the folder that it says"
            return
        try:
            pinned(place)
        except HubError as error:
            yield f"model.init: {error}"
    elif not any((folder / name).is_file() for name in SETTINGS):
        yield f"model.init: {place}: not a checkpoint, it has none of {', '.join(SETTINGS)}"


def random_size(config: PipelineConfig) -> Iterator[Finding]:
    """A model of random weights has the size that the config says, not the family's default."""
    model = config.model
    if model.init != RANDOM:
        return
    if not model.architecture and parameters(model) > LARGE:
        yield Finding(
            f"model: nothing is said of it, which would be {_billions(model)} random parameters; extend "
            "configs/base.yaml, or name weights as model.init, or a size as model.architecture",
            step=STEP,
        )
    elif model.tokenizer is None and part(model.family, "settings").NEEDS_TOKENIZER:
        yield Finding("model.tokenizer: is not set; give a tokenizer.json, or a checkpoint as model.init", step=STEP)
    elif parameters(model) > LARGE:
        text = (
            f"model.init is `random`: {_billions(model)} parameters start untrained; published weights are named there"
        )
        yield Finding(text, refuses=False, step=STEP)


def parameters(model: ModelConfig) -> int:
    """About how many weights the model has."""
    architecture = architecture_of(model.family, model.architecture)
    return part(model.family, "settings").parameters(architecture)


def _billions(model: ModelConfig) -> str:
    return f"{parameters(model) / 1e9:.1f} billion"


def room(config: PipelineConfig) -> Iterator[Finding]:
    """The smallest example that the first rows can give fits preprocess.max_tokens and a pack."""
    model = config.model
    if model.init != RANDOM or not model.architecture or not model.tokenizer or not Path(model.tokenizer).is_file():
        return
    least = _smallest(config, peek(config))
    if least is None:
        return
    what = (
        f"the smallest example (a picture, the shortest question, an answer) has {least} tokens: nothing fits; raise it"
    )
    for key, step, most in (
        ("preprocess.max_tokens", "preprocess", config.preprocess.max_tokens),
        ("train.pack_tokens", "train", config.train.pack_tokens),
    ):
        if most < least:
            yield Finding(f"{key} is {most}, and {what}", step=step)


def _smallest(config: PipelineConfig, rows: Peek) -> int | None:
    """Tokens of an example with a picture and an answer of one character; None where rows bring their own questions."""
    from plm_model.records.record import parse_record

    if not rows.filled:
        return None
    question = "?" if config.convert.question_column else min(config.convert.questions, key=len)
    turns = [{"from": "human", "value": question}, {"from": "assistant", "value": "1"}]
    record = parse_record({"id": "a", "image": "a.png", "conversations": turns})
    try:
        architecture = architecture_of(config.model.family, config.model.architecture)
        codec = part(config.model.family, "codec")
        return codec.smallest(architecture, Path(config.model.tokenizer or ""), record)
    except ValueError:  # of another tokenizer, or above the decoder's own limit: the step says which
        return None
