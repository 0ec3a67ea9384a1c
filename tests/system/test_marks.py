"""Settings that are marked as without effect have none: two runs of smoke that differ in all of them give the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.effects import counted
from components.pipeline.config_loading import load_config
from components.pipeline.steps import STEPS
from tests.components.pipeline.test_keys import settings_of
from tests.system.conftest import SMOKE, Workplace

PLAIN = ("train.exact_elastic=true", "train.workers=1")  # else ranks add in another order than one does
CHANGED = (
    "evaluate.task=other",
    "evaluate.batch_size=3",
    "evaluate.device=cpu",
    "evaluate.workers=2",
    "evaluate.offline=true",
    "evaluate.judge.max_calls=7",
    "evaluate.judge.timeout_s=9",
    "evaluate.judge.retries=1",
    "evaluate.judge.parallel=2",
    "evaluate.judge.key_variable=MY_KEY",
    "preprocess.parallelism=1",
    "train.workers=2",
    "train.log_every=7",
    "train.loader_workers=1",
    "train.shard_cache_gb=1",
    "train.use_gpu=false",
    "train.cpus_per_worker=0.5",
    "train.keep_checkpoints=1",
    "train.checkpoint_patience_s=9",
    "train.max_failed_checkpoints=1",
    "train.max_failures=0",
    "train.guards.hang_seconds=60",
    "train.guards.max_unsound_steps=3",
    "train.validate_every=9",
    "train.checkpoint_every=10",
)
DATA = {  # of each step what its result is; the rest tells of seconds and of machines
    "ingest": "**/*",
    "convert": "*.jsonl",
    "base": "**/*",
    "preprocess": "**/*.parquet",
    "consolidate": "*.safetensors",
    "evaluate_base": "samples/heldout.jsonl",
    "evaluate": "samples/heldout.jsonl",
}


def marked() -> set[str]:
    """The keys of smoke's config whose classes say that they have no effect, where a run on this machine can change them."""
    config = load_config(SMOKE)
    found = set()
    for name, step in STEPS.items():
        section = step.section or name
        given = step.settings(config)
        found |= {f"{section}.{'.'.join(place)}" for place, free in settings_of(given) if free}
    return found


def files(place: Workplace, step: str) -> dict[str, bytes]:
    (folder,) = [path for path in (place.root / "runs/artifacts" / step).glob("*/*") if path.is_dir()]
    found = sorted(path for path in folder.glob(DATA[step]) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[tuple[Workplace, Workplace]]:
    tokenizer = tmp_path_factory.mktemp("elsewhere") / "tokenizer.json"
    shutil.copyfile(str(load_config(SMOKE).model.tokenizer), tokenizer)
    places = []
    for changes in (PLAIN, (*PLAIN, *CHANGED, f"model.tokenizer={tokenizer}")):
        place = Workplace(tmp_path_factory.mktemp("marks"), repository)
        ran = place.plm("finetune", SMOKE, *place.overrides, *changes)
        assert ran.returncode == 0, ran.stderr[-3000:]
        places.append(place)
    yield places[0], places[1]


def test_every_mark_that_smoke_has_is_changed() -> None:
    here = {change.split("=")[0] for change in CHANGED} | {"model.tokenizer"}
    alone = {
        "champion.tracking",
        "register.tracking",
        "train.min_workers",
        "train.profile",
    }  # where records are; elastic; traces
    assert marked() - alone <= here


@pytest.mark.e2e
@pytest.mark.parametrize("step", DATA)
def test_outputs_are_the_same_bytes(step: str, runs: tuple[Workplace, Workplace]) -> None:
    one, other = (files(place, step) for place in runs)
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []


def test_a_mark_takes_a_setting_out_of_the_key() -> None:
    def keys(*changes: str) -> Any:
        config = load_config(SMOKE, changes)
        return {
            name: counted(step.settings(config)) for name, step in STEPS.items() if name not in ("compare", "train")
        }

    assert keys() == keys(*(change for change in CHANGED if not change.startswith("train.")))
