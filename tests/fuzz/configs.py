"""Damaged config files through the code of `plm finetune CONFIG --explain`: an error is a line for the user, or a finding."""

from __future__ import annotations

import contextlib
import io
import random
import time
import traceback
from pathlib import Path
from typing import Any

import yaml

from components.errors import UserError
from tests.fuzz.chain import ROW_SECONDS, Result
from tests.fuzz.mutate import ODD_TEXTS, mutated_bytes, place_in, rename

REPOSITORY = Path(__file__).parents[2]
BASES = ("smoke.yaml", "demo.yaml", "stage_3/plm_1b.yaml", "finetune/radiology_8b_lora.yaml")
# None that names a place of this machine that a start could write to, or a host that answers slowly.
ODD_SETTINGS: tuple[Any, ...] = (
    *(text for text in ODD_TEXTS if "passwd" not in text),
    None,
    True,
    0,
    -1,
    7,
    1.5,
    1e308,
    10**20,
    float("nan"),
    float("inf"),
    [],
    {},
    [1, 2],
    {"a": 1},
    "random",
    "auto",
    "no/such/place",
    "owner/name",
    "team/model(,*)",
)
SECTIONS = (
    "train",
    "model",
    "ingest",
    "convert",
    "preprocess",
    "evaluate",
    "gate",
    "ray",
    "registry",
    "tracking",
    "storage",
)


def mutated_config(folder: Path, random: random.Random) -> Path:
    """A config file of the repository, laid over which are one to three odd settings, or whose text is damaged."""
    path = folder / "odd.yaml"
    values: dict[str, Any] = {"extends": str(REPOSITORY / "configs" / random.choice(BASES)), "name": "fuzz"}
    values |= {"storage": {"root": str(folder / "runs")}, "tracking": {"state_dir": str(folder / "runs")}}
    known = settings_below(random.choice(SECTIONS))
    for _ in range(random.randint(1, 3)):
        holder = values
        *parents, leaf = random.choice(known).split(".")
        for name in parents:
            inner = holder.setdefault(name, {})
            holder = inner if isinstance(inner, dict) else holder
        holder[leaf] = random.choice(ODD_SETTINGS)
    if random.random() < 0.2 and (place := place_in(values, random)) is not None:
        rename(values, random) if random.random() < 0.5 else place[0].__setitem__(place[1], random.choice(ODD_SETTINGS))
    data = yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")
    path.write_bytes(mutated_bytes(data, random) if random.random() < 0.4 else data)
    return path


def settings_below(section: str) -> list[str]:
    """The dotted names of a section's settings."""
    from components.pipeline.config import PipelineConfig
    from components.pipeline.config_loading import flatten

    return list(flatten({section: PipelineConfig().model_dump(mode="json")[section]}))


def explained(path: Path) -> Result:
    """Load and explain one config file; what it prints is swallowed."""
    from components.pipeline.config_loading import load_config
    from flows.commands.finetune import explain_plan

    result, start = Result(rows=1), time.process_time()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            explain_plan(load_config(str(path)), ())
    except UserError as error:
        result.rejected = 1
        if any(len(line) > 1500 for line in str(error).splitlines()) or not str(error).strip():
            result.find("message", str(error))
    except (Exception, SystemExit) as error:
        where = " < ".join(
            f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]
        )
        result.find("traceback", f"{type(error).__name__}: {error} at {where}: {path.read_bytes()[:300]!r}")
    if time.process_time() - start > ROW_SECONDS:
        result.find("slow", f"{time.process_time() - start:.0f} s: {path.read_bytes()[:300]!r}")
    return result
