"""What a start is refused for before any server starts: the machine, the data, the model, the names, the numbers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.errors import ConfigError
from components.pipeline.config_loading import load_config
from components.pipeline.steps import STEPS
from components.preflight.machine import not_writable
from components.preflight.start import look
from components.processes.machine import usable_cores, visible_gpus

PLM = str(Path(sys.executable).parent / "plm")
HUB_COMMIT = "0" * 40


def said(*overrides: str, steps: Any = STEPS, config: str = "configs/smoke.yaml") -> list[str]:
    """What refuses a start with these overrides."""
    return [finding.text for finding in look(load_config(config, overrides), steps) if finding.refuses]


def one(*overrides: str, **options: Any) -> str:
    (text,) = said(*overrides, **options)
    return text


def refused(*overrides: str) -> str:
    """What the config itself is refused for."""
    with pytest.raises(ConfigError) as error:
        load_config("configs/smoke.yaml", overrides)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with captions and names."""
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (8, 8)).save(data / "a.png")
    (data / "labels.csv").write_text("image,label,caption\na.png,1,one\n")
    return data


def of(folder: Path) -> str:
    return f"ingest.source={{kind: folder, path: {folder}}}"


def test_the_shipped_smoke_and_demo_have_nothing_against_them() -> None:
    assert said() == said(config="configs/demo.yaml") == []


# The machine


@pytest.mark.case("E9")
def test_a_temporary_folder_that_is_too_long_for_rays_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "/tmp/" + "t" * 55
    monkeypatch.setenv("TMPDIR", long)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert one().startswith(f"TMPDIR={long}: its 60 characters leave no room for the names of Ray's sockets")
    assert said(steps={"ingest"}) == []
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert said() == []


@pytest.mark.case("E9")
def test_the_longest_folder_that_is_let_pass_is_one_in_which_ray_makes_its_sockets(tmp_path: Path) -> None:
    from components.preflight.machine import RAYS_PART, SOCKET_BYTES

    longest = "/tmp/" + "t" * (SOCKET_BYTES - len(RAYS_PART) - len("/tmp/"))
    from ray._private.utils import validate_socket_filepath

    validate_socket_filepath(longest + RAYS_PART)
    with pytest.raises(OSError, match="107 bytes"):
        validate_socket_filepath(f"{longest}t{RAYS_PART}")


@pytest.mark.case("E9")
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "nothing answers there"),
        ("http://127.0.0.1:8265", "put a dashboard's http://… into the config as ray.address"),
        ("auto", "no Ray runs on this machine"),
        ("nonsense", "nothing answers there"),
    ],
)
def test_a_ray_address_that_leads_nowhere(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    text = one()
    assert text.startswith(f"RAY_ADDRESS={address}: ") and reason in text and "unset it for a local Ray" in text


@pytest.mark.case("E9")
def test_the_dashboard_of_the_config_answers_or_is_named() -> None:
    assert "nothing answers there" in one("ray.address=http://127.0.0.1:9")
    assert "must be the address of Ray's dashboard" in one("ray.address=auto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert said(f"ray.address=http://127.0.0.1:{server.getsockname()[1]}") == []


@pytest.mark.case("E9")
def test_cores_are_those_of_the_affinity_and_of_the_control_group(tmp_path: Path) -> None:
    script = (
        "import os; os.sched_setaffinity(0, {0})\n"
        "from components.processes.machine import usable_cores; print(usable_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "1"
    member = tmp_path / "member"
    member.write_text("0::/pod/job\n")
    inner = tmp_path / "groups/pod/job"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path / "groups", member) == len(os.sched_getaffinity(0))
    (inner.parent / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path / "groups", member) == 1
    member.write_text("4:cpu,cpuacct:/docker/x\n")
    (tmp_path / "groups/cpu").mkdir()
    (tmp_path / "groups/cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "groups/cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path / "groups", member) == 1


@pytest.mark.case("E9")
def test_a_tilde_is_the_home_folder_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    places = ["storage.root=~/runs", "storage.cache_dir=~/c", "tracking.state_dir=~/s", "model.tokenizer=~/t.json"]
    config = load_config("configs/smoke.yaml", [*places, "ingest.source={kind: folder, path: ~/data}"])
    assert config.storage.root == "/home/me/runs" and config.storage.cache_dir == "/home/me/c"
    assert config.tracking.state_dir == "/home/me/s" and config.model.tokenizer == "/home/me/t.json"
    assert config.ingest.source.path == "/home/me/data"  # type: ignore[union-attr]
    assert "no home folder of that name" in refused("storage.root=~nobody-of-that-name/runs")


@pytest.mark.case("E9")
@pytest.mark.parametrize("folder", ["a?b", "a%20b"])
def test_a_path_that_databases_read_otherwise(folder: str, tmp_path: Path) -> None:
    text = one(f"tracking.state_dir={tmp_path}/{folder}")
    assert text.startswith(f"tracking.state_dir {tmp_path}/{folder}: ") and not list(tmp_path.iterdir())


@pytest.mark.case("E9")
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert one(f"tracking.state_dir={tmp_path}/file/runs") == (
        f"tracking.state_dir {tmp_path}/file/runs: cannot be written: {tmp_path}/file is no folder; name another folder, or "
        "change its rights"
    )
    assert "File name too long" in one(f"storage.cache_dir={tmp_path}/{'n' * 300}")


@pytest.mark.case("E9")
def test_a_folder_of_another_user_is_not_writable() -> None:
    """Asked as the user `nobody` where the tests run as root, who may write everywhere."""
    locked = Path("/usr/lib")
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        os._exit(not_writable(locked / "runs") != f"{locked} is read-only for this user")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.case("E9")
def test_a_name_of_300_letters_is_refused_with_its_key() -> None:
    text = refused(f"name={'a' * 300}")
    assert text.startswith("override: name: string should have at most 100 characters") and len(text) < 200


# Names and numbers


@pytest.mark.case("E10")
@pytest.mark.parametrize("name", ["team/model", "a:b", ".."])
def test_names_that_the_registry_would_refuse_at_the_end(name: str) -> None:
    assert refused(f"registry.name='{name}'").startswith("override: registry.name: a model's name in MLflow has no `/`")


@pytest.mark.case("E10")
@pytest.mark.parametrize("name", ["a(b)", "a,b", "a*", "a b", "a/b", ""])
def test_task_names_that_no_metric_may_have(name: str) -> None:
    assert refused(f"evaluate.task='{name}'").startswith("override: evaluate.task: a task's name has letters")


@pytest.mark.case("E12")
@pytest.mark.parametrize(
    "override",
    [
        "gate.min_gain=.nan",
        "gate.min_gain=.inf",
        "gate.min_gain=50",
        "compare.confidence=.nan",
        "convert.test_fraction=.nan",
        "convert.split_seed=100000000000000000000",
        "model.seed=-1",
        "preprocess.max_tokens=100000000000",
        "ray.poll_seconds=.inf",
        "evaluate.batch_size=0",
    ],
)
def test_numbers_that_cannot_be_are_refused_with_the_key(override: str) -> None:
    key = override.partition("=")[0]
    text = refused(override)
    assert text.startswith(f"override: {key}: ") and "\n" not in text


# Data and model


@pytest.mark.case("E17")
def test_weights_that_are_not_there(tmp_path: Path) -> None:
    assert one("model.init=/nope") == "model.init: /nope: no such directory"
    assert "give the full commit, facebook/Perception-LM-1B@<40 hex" in one("model.init=facebook/Perception-LM-1B")
    assert said(f"model.init=facebook/Perception-LM-1B@{HUB_COMMIT}") == []
    assert "not a checkpoint, it has none of config.json" in one(f"model.init={tmp_path}")
    assert said("model.init=/nope", steps={"ingest"}) == []


@pytest.mark.case("E17")
def test_a_data_set_of_the_hub_without_its_commit() -> None:
    text = one("ingest.source={kind: parquet, path: unsloth/Radiology_mini}")
    assert text.startswith("ingest.source.path: unsloth/Radiology_mini: ") and "/datasets/unsloth" in text


@pytest.mark.case("E17")
def test_gpus_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidia1").touch()
    (tmp_path / "nvidiactl").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible_gpus(tmp_path) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = one("train.use_gpu=true", "train.workers=8")
    assert text.startswith("train.use_gpu: 8 workers need a GPU each, this machine has none; ")
    assert said("train.use_gpu=true", "train.workers=8", "ray.address=http://127.0.0.1:9") != [text]


@pytest.mark.case("E17")
def test_columns_that_no_row_has(folder: Path) -> None:
    assert said(of(folder), "convert.answer='{caption}'") == []
    text = one(of(folder), "convert.answer='It is {captoin}.'")
    assert text == "convert.answer: labels.csv has no column 'captoin'; did you mean 'caption'?"
    assert "has no column 'xyz'; it has 'image', 'label', 'caption'" in one(of(folder), "convert.question_column=xyz")
    (folder / "labels.jsonl").write_text('{"image": "a.png", "label": "1"}\n')
    rows = f"ingest.source={{kind: folder, path: {folder}, annotations: labels.jsonl}}"
    assert "labels.jsonl has no column 'tilte'" in one(rows, "convert.answer='{tilte}'")
    (folder / "labels.jsonl").write_text('{"image": "a.png"}\n{"image": "a.png", "tilte": "later"}\n')
    assert said(rows, "convert.answer='{tilte}'") == []


@pytest.mark.case("E17")
def test_a_source_that_is_not_there(folder: Path) -> None:
    assert one(of(folder / "no")) == f"ingest.source.path: {folder}/no: no such folder"
    text = one(f"ingest.source={{kind: folder, path: {folder}, annotations: lables.csv}}")
    assert text == f"ingest.source.annotations: {folder}/lables.csv: no such file"


@pytest.mark.case("E17")
def test_a_pack_that_nothing_fits() -> None:
    text = one("train.pack_tokens=16")
    assert text.startswith(
        "train.pack_tokens is 16, and the smallest example (a picture, the shortest question, an answer) has "
    )
    least = int(text.partition(" has ")[2].split()[0])
    assert said(f"train.pack_tokens={least}", f"preprocess.max_tokens={least}") == []
    assert one(f"preprocess.max_tokens={least - 1}").startswith(
        f"preprocess.max_tokens is {least - 1}, and the smallest"
    )


@pytest.mark.case("E17")
def test_the_smallest_example_is_as_long_as_a_digits() -> None:
    """The same text through the codec that encodes for training, so that the bound refuses nothing that would fit."""
    from plm_model.families.plm.codec import Codec
    from plm_model.families.plm.settings import PLMConfig
    from plm_model.families.plm.tokenizer import Tokenizer
    from plm_model.records.record import parse_record

    config = load_config("configs/smoke.yaml")
    turns = [{"from": "human", "value": "What digit do you see?"}, {"from": "assistant", "value": "7"}]
    codec = Codec(Tokenizer.from_file(str(config.model.tokenizer)), PLMConfig.from_dict(config.model.architecture))
    length = codec.encode(parse_record({"id": "a", "image": "a.png", "conversations": turns}), [1]).length
    assert said(f"train.pack_tokens={length}") == []


@pytest.mark.case("E17")
def test_a_config_that_says_nothing_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text("name: bare\n")
    text = one(config=str(tmp_path / "bare.yaml"))
    assert "would be 1.5 billion random parameters" in text and "configs/base.yaml" in text


@pytest.mark.case("E16")
def test_the_demos_life_over_other_data_is_said(folder: Path) -> None:
    notes = look(load_config("configs/demo.yaml", [of(folder)]), STEPS)
    (text,) = [finding.text for finding in notes if not finding.refuses]
    assert text.startswith("evaluate.task is `digits` and the data are others") and "configs/base.yaml" in text
    assert look(load_config("configs/demo.yaml", [of(folder), "evaluate.task=mine"]), STEPS) == []


# Starts

WRONG = ("model.init=/nope", "train.use_gpu=true", "train.workers=64")


@pytest.mark.case("E9", "E10", "E12", "E16", "E17")
@pytest.mark.parametrize("command", [("finetune",), ("finetune", "--explain"), ("base",)])
def test_every_start_says_it_first_and_writes_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    places = [f"storage.root={tmp_path}/r", f"tracking.state_dir={tmp_path}/s", f"storage.cache_dir={tmp_path}/c"]
    name, *options = command
    began = time.process_time()
    ran = subprocess.run([PLM, name, "configs/smoke.yaml", *options, *places, *WRONG], capture_output=True, text=True)
    assert time.process_time() - began < 5
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert ran.returncode == 2 and "error: model.init: /nope: no such directory" in lines
    assert (len(lines) == 2) == (name == "finetune") and not list(tmp_path.iterdir())
    assert ("base               runs" in ran.stdout) == bool(options)
