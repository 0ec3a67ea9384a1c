"""What somebody meant by a key that the config does not have: the same word elsewhere, the field's other words, a near one."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import is_typeddict

from components.settings import KeysOf

SHOWN_KEYS = 3
# Our key -> what other programs call it.
OTHER_WORDS: Mapping[str, str] = {
    "train.lr": "learning_rate max_lr peak_lr base_lr",
    "train.epochs": "num_train_epochs num_epochs n_epochs max_epochs total_epochs epoch",
    "train.steps": "max_steps num_steps n_steps total_steps training_steps num_training_steps iterations max_iters",
    "train.packs_per_step": "per_device_train_batch_size train_batch_size batch_size global_batch_size micro_batch_size "
    "gradient_accumulation_steps grad_accum accumulate_grad_batches",
    "train.pack_tokens": "tokens_per_batch max_tokens_per_batch",
    "train.dtype": "bf16 fp16 precision mixed_precision torch_dtype amp",
    "train.warmup_steps": "num_warmup_steps warmup warmup_ratio",
    "train.schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule",
    "train.clip_norm": "max_grad_norm grad_clip gradient_clip_val clip_grad",
    "train.weight_decay": "wd",
    "train.betas": "adam_beta1 adam_beta2 adam_betas",
    "train.recompute": "gradient_checkpointing activation_checkpointing",
    "train.checkpoint_every": "save_steps save_every save_interval",
    "train.keep_checkpoints": "save_total_limit keep_last",
    "train.log_every": "logging_steps log_interval",
    "train.validate_every": "eval_steps eval_every eval_interval",
    "train.loader_workers": "num_workers dataloader_num_workers",
    "train.workers": "num_gpus n_gpus gpus nproc_per_node world_size",
    "train.use_gpu": "cuda gpu",
    "train.parallel": "deepspeed fsdp fsdp_config",
    "train.lora.pattern": "target_modules lora_target lora_target_modules use_lora peft",
    "train.lora.rank": "lora_r lora_rank r",
    "train.lora.alpha": "lora_alpha",
    "train.lora.dropout": "lora_dropout",
    "train.ema_decay": "ema",
    "preprocess.max_tokens": "max_seq_length max_seq_len max_length cutoff_len model_max_length seq_len",
    "model.init": "model_name_or_path model_name pretrained_model_name_or_path base_model pretrained",
    "storage.root": "output_dir save_dir out_dir",
    "ingest.source": "dataset data data_path train_file dataset_dir data_dir",
    "ingest.image_column": "image_key image_field images_column",
    "convert.test_fraction": "val_size test_size eval_fraction val_fraction",
    "tracking.experiment": "experiment_name project wandb_project",
    "tracking.uri": "report_to mlflow_uri",
}
MEANT = {word: key for key, words in OTHER_WORDS.items() for word in words.split()}
# Where a value is meant, too.
# What earlier versions called it.
RENAMED = {
    "convert.image_column": "ingest.image_column",
    "ingest.source.registry": "ingest.source.catalogue",
    "train.pack_tiles": "train.pack_media",
    "train.result": "train.publish",
    "train.guards.most": "train.guards.max_unsound_steps",
    "evaluate.builtin_tasks": "evaluate.tasks",
}
VALUES = {"bf16": "train.dtype=bfloat16", "fp16": "train.dtype=bfloat16, fp16 is not trained in"}


def suggestion(kind: Any, location: Sequence[str], value: Any) -> str:
    """`; did you mean train.lr?` for an unknown key of the config `kind`, or which keys there are beside it.

    In this order: another program's word for a key of ours, the very same word elsewhere, a near word beside it or
    elsewhere. `value` is what the key was given; a mapping's own key belongs to the word.
    """
    while isinstance(value, Mapping) and len(value) == 1:
        ((inner, value),) = value.items()
        location = [*location, str(inner)]
    if now := RENAMED.get(".".join(location)):
        return f"; it is called {now} now"
    known = {dotted for dotted, _ in known_keys(kind)}
    word = location[-1]
    if word in VALUES:
        return f"; did you mean {VALUES[word]}?"
    if word in MEANT:
        return f"; did you mean {MEANT[word]}?"
    ending = ".".join(location)
    same = [key for key in known if key == ending or key.endswith(f".{ending}")]
    if same := same or [key for key in known if key.rpartition(".")[2] == word]:
        first, *others = sorted(same, key=lambda key: (not key.startswith("train."), key.count("."), key))[:SHOWN_KEYS]
        return f"; did you mean {first}?" + (f" (there are {', '.join(others)}, too)" if others else "")
    return _near(known, location)


def _near(known: set[str], location: Sequence[str]) -> str:
    prefix = "".join(f"{part}." for part in location[:-1])
    siblings = {key for key in known if key.startswith(prefix) and "." not in key[len(prefix) :]}
    near = difflib.get_close_matches(".".join(location), sorted(siblings), 1, 0.5)
    if not near:
        leaves = {key.rsplit(".", 1)[-1]: key for key in sorted(known, reverse=True)}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(location[-1], sorted(leaves), 1, 0.6)]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(sorted(key[len(prefix) :] for key in siblings))}" if siblings else ""


def keys_of_section(kind: Any, dotted: str) -> list[str]:
    """The keys within a section of the config; empty where it is no section."""
    annotation = dict(known_keys(kind)).get(dotted)
    return [name for member in sections_of(annotation) for name, _ in _fields(member)]


def known_keys(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a model or dataclass with its annotation, sections included."""
    for name, annotation in _fields(kind):
        yield f"{prefix}{name}", annotation
        for member in sections_of(annotation):
            yield from known_keys(member, f"{prefix}{name}.")


def _fields(kind: Any) -> list[tuple[str, Any]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [
            (name, next((found() for found in field.metadata if isinstance(found, KeysOf)), field.annotation))
            for name, field in kind.model_fields.items()
        ]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return [(field.name, hints[field.name]) for field in dataclass_fields(kind)]
    if is_typeddict(kind):
        return list(kind.__annotations__.items())
    return []


def sections_of(annotation: Any) -> list[Any]:
    """The classes of settings among what a field may hold."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return sections_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in sections_of(argument)]
    if origin is Literal or not isinstance(annotation, type):
        return []
    sections = issubclass(annotation, BaseModel) or is_dataclass(annotation) or is_typeddict(annotation)
    return [annotation] if sections else []
