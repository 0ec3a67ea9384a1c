"""What the READMEs say can be typed, works as typed. (`make demo` and `make ui` are in `make e2e`.)"""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from PIL import Image

from components.pipeline.config_loading import load_config

BIN = Path(sys.executable).parent
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


AWAY = ["tracking.required=false", "tracking.uri=http://127.0.0.1:9"]
PAGES = ("README.md", "configs/README.md", "configs/finetune/README.md", "infra/README.md")


def blocks(repository: Path, language: str, pages: Sequence[str] = PAGES) -> list[str]:
    text = "".join((repository / page).read_text() for page in pages)
    return [text for kind, text in FENCE.findall(text) if kind == language]


def commands(repository: Path, start: str, pages: Sequence[str] = PAGES) -> list[list[str]]:
    lines = [line for block in blocks(repository, "bash", pages) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


@pytest.fixture(scope="module")
def place(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the READMEs' configs, ten images and their labels, and the shipped configs beside."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "configs").symlink_to(repository / "configs")
    for config in blocks(repository, "yaml"):
        (folder / config.split()[1]).write_text(config)
    data = folder / yaml.safe_load((folder / "mine.yaml").read_text())["ingest"]["source"]["path"]
    data.mkdir(parents=True)
    with open(data / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label"])
        for n in range(10):
            Image.new("RGB", (40, 30), (25 * n, 80, 120)).save(data / f"{n}.png")
            rows.writerow([f"{n}.png", f"shade {n}"])
    for command in commands(repository, "python configs/"):
        made = run(folder, command)
        assert made.returncode == 0, made.stderr
    return folder


def run(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", ["mine", "published", "radiology"])
def test_the_configs_are_valid(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert load_config(f"{name}.yaml").name.startswith(name)


def test_every_finetune_command_is_understood(place: Path, repository: Path) -> None:
    """Each is run to the point where it would start to work; the system tests run the chain itself.

    What they may be refused for is that this machine lacks the GPUs, that a commit of the hub is still to be filled in, or
    that another config makes the model that this one starts from.
    """
    for command in commands(repository, "plm finetune"):
        planned = run(place, [*command, *([] if "--explain" in command else ["--explain"])])
        errors = [line for line in planned.stderr.splitlines() if line.startswith("error: ")]
        assert planned.returncode == (2 if errors else 0) and "ingest             runs" in planned.stdout, (
            planned.stderr
        )
        allowed = ("need a GPU each", "give the full commit", "makes it: name the folder that it says")
        assert not [line for line in errors if not any(text in line for text in allowed)]


def test_the_converter_of_published_rows_answers(place: Path) -> None:
    answered = run(place, ["python", "-m", "components.formats.plm_video_human", "--help"])
    assert answered.returncode == 0 and "--boxes" in answered.stdout


def test_steps_by_themselves_are_understood(place: Path, repository: Path) -> None:
    """Run on a folder that is not there: each names the source, so that it was read and is what it is about."""
    for command in [*commands(repository, "plm ingest"), *commands(repository, "plm convert")]:
        tried = run(place, [*command, "ingest.source.path=nowhere", *AWAY])
        assert tried.returncode == 2 and ("nowhere" in tried.stderr or "plm ingest" in tried.stderr), tried.stderr


def test_your_own_folder_becomes_conversations(place: Path) -> None:
    for step in ("ingest", "convert"):
        ran = run(place, ["plm", step, "mine.yaml", *AWAY])
        assert ran.returncode == 0, ran.stderr
    (train,) = (place / "runs/artifacts/convert").glob("*/*/train.jsonl")
    assert "shade" in train.read_text()


@pytest.mark.e2e
def test_generate_and_export_work_on_a_model(place: Path, repository: Path) -> None:
    made = run(
        place,
        ["plm", "base", "mine.yaml", *AWAY, "--json"],
    )
    assert made.returncode == 0, made.stderr
    (model,) = [path.parent for path in (place / "runs/artifacts/base").glob("*/*/model.safetensors")]
    Image.new("RGB", (40, 30)).save(place / "a.png")
    for start in ("plm generate", "plm export"):
        (command,) = commands(repository, start, ["configs/README.md"])
        ran = run(place, [str(model) if word == "MODEL" else word for word in command])
        assert ran.returncode == 0, ran.stderr
    assert (place / "exported/config.json").exists()


def test_the_pages_point_at_what_is_there(repository: Path) -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (repository / page).read_text()):
            assert (repository / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_first_page_is_one_screen(repository: Path) -> None:
    assert len((repository / "README.md").read_text().splitlines()) <= 80


def test_prefect_commands_are_those_that_the_system_tests_run(repository: Path) -> None:
    written = (repository / "tests/system/conftest.py").read_text()
    for command in commands(repository, "prefect "):
        words = [word for word in command[1:] if word not in ("&", "-d")]
        assert all(f'"{word}"' in written for word in words), command
