"""A family that lives outside the three packages and comes in by an entry point goes through the whole chain."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from PIL import Image

from components.artifacts.artifact import Artifact
from components.artifacts.store import ArtifactStore
from components.evaluate.ask import answer
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import load_config
from components.pipeline.steps import STEPS
from components.train.checkpoints.checkpoint import newest, read_state
from components.train.folder import TrainingFolder
from components.train.watch.signals import Stopped
from components.train.worker import TrainJob, run_rank
from plm_model.family import UnknownFamily, families, package
from tests.system.conftest import SMOKE, Workplace

SITE = str(Path(__file__).parents[1] / "mean_colour")  # as site-packages would have it: a package and its entry points
STEPS_TRAINED = 8


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """The family's package, in this process and in those that it starts."""
    path, before = os.environ.get("PYTHONPATH"), list(sys.path)
    os.environ["PYTHONPATH"] = os.pathsep.join([SITE, *([path] if path else [])])
    sys.path.insert(0, SITE)
    families.cache_clear()
    yield
    sys.path[:] = before
    os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)
    families.cache_clear()


@pytest.fixture(scope="module")
def config(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smoke's config with the other family in the place of PLM, trained on two ranks."""
    values = load_config(SMOKE).model_dump(mode="json")
    values["model"] = {"family": "mean_colour"}
    values["train"] |= {"steps": STEPS_TRAINED, "checkpoint_every": 4, "workers": 2, "lr": 0.02}
    file = tmp_path_factory.mktemp("family") / "mean_colour.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture(scope="module")
def chain(config: Path, repository: Path) -> tuple[Workplace, dict[str, Any]]:
    """The whole chain by `plm finetune`: where, and its summary."""
    place = Workplace(config.parent, repository)
    ran = place.plm("finetune", str(config), *place.overrides, "--json")
    assert ran.returncode == 0, ran.stderr[-3000:]
    return place, json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def made(chain: tuple[Workplace, dict[str, Any]], config: Path) -> Mapping[str, Artifact]:
    """The artifact of each step."""
    place, _ = chain
    resolved, found = load_config(str(config), place.overrides), dict[str, Artifact]()
    store = ArtifactStore(resolved.storage.root, resolved.storage.cache_dir)
    for name, step in STEPS.items():
        artifact = store.find(step.key(resolved, {part: found[source] for part, source in step.inputs.items()}))
        assert artifact is not None, name
        found[name] = artifact
    return found


def test_every_step_was_run_and_measured(chain: tuple[Workplace, dict[str, Any]], made: Mapping[str, Artifact]) -> None:
    _, summary = chain
    assert set(made) == set(STEPS) == set(summary["steps"]) and summary["heldout"] == 16
    assert json.loads(made["consolidate"].open("config.json", "r").read())["model_type"] == "mean_colour"
    assert made["preprocess"].manifest["counts"]["train_examples"] == 48


def test_what_it_learnt_shows_in_the_loss(made: Mapping[str, Artifact]) -> None:
    lines = [json.loads(line) for line in made["train"].open("metrics.jsonl", "r")]
    assert lines[-1]["train/loss"] < 0.8 * lines[0]["train/loss"]


def test_its_model_answers(made: Mapping[str, Artifact], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "white").save(tmp_path / "a.png")
    said = answer(str(made["consolidate"].local()), "image", [str(tmp_path / "a.png")], "Which digit?", max_gen_len=4)
    assert said["prompt_tokens"] == 1 + len("Which digit?") + 1 and said["tokens"] <= 4


def test_the_keys_count_its_parts_and_none_of_plm(installed: None) -> None:
    code = STEPS["preprocess"].code("mean_colour")
    assert {"mean_colour.codec", "mean_colour.settings"} <= code.keys() and "mean_colour.model" not in code
    for step in STEPS.values():
        assert not [name for name in step.code("mean_colour") if name.startswith("plm_model.families.")], step.name
        assert not [name for name in step.code("plm") if name.startswith("mean_colour")], step.name


def test_a_key_of_another_family_is_refused(installed: None) -> None:
    values = {"model": {"family": "mean_colour", "architecture": {"vision": {"width": 3}}}}
    with pytest.raises(ValueError, match=r"model\.architecture\.vision"):
        PipelineConfig.model_validate(values)


def test_a_family_that_nobody_brings_is_named_with_those_that_are_there(installed: None) -> None:
    with pytest.raises(UnknownFamily, match=r"'mean_shape'; there are mean_colour, plm"):
        package("mean_shape")


def train_twice(rank: int, job: TrainJob, folder: str) -> None:
    """On one rank of two: a training whole, and one that is stopped after two steps and begun again."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    device = torch.device("cpu")
    run_rank(replace(job, folder=TrainingFolder(f"{folder}/whole")), device)
    broken = replace(job, folder=TrainingFolder(f"{folder}/broken"))

    def stop(line: Mapping[str, Any]) -> None:
        if line["step"] == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        run_rank(broken, device, stop)
    if rank == 0:
        folder_of = newest(broken.folder.checkpoints) or ""
        Path(folder, "stopped").write_text(str(read_state(folder_of)["step"]))
    run_rank(broken, device)
    dist.destroy_process_group()


def test_its_training_resumes_bit_by_bit_on_two_ranks(
    made: Mapping[str, Artifact], config: Path, tmp_path: Path
) -> None:
    settings = replace(load_config(str(config)).train, log_every=1)
    job = TrainJob(settings, made["preprocess"], made["base"], TrainingFolder(""))
    mp.spawn(train_twice, (job, str(tmp_path)), nprocs=2)
    assert 2 <= int((tmp_path / "stopped").read_text()) < STEPS_TRAINED
    whole, broken = (newest(f"{tmp_path}/{name}/checkpoints") or "" for name in ("whole", "broken"))
    files = sorted(path.name for path in Path(whole).glob("*.distcp"))
    assert files and all((Path(whole) / name).read_bytes() == (Path(broken) / name).read_bytes() for name in files)
