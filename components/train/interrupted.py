"""What interrupted trainings left below a storage root: how far each came, its size, and what keeps it from being resumed.

Needs no torch: it is asked at every start, and by `--explain`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.artifacts.files import filesystem, read_json, write_json
from components.train.folder import CHECKPOINTS

NOTES = "training.json"
STATE, METADATA = "state.json", ".metadata"  # as in `components.train.checkpoints.checkpoint`
CHECKPOINT = re.compile(rf"{CHECKPOINTS}/step-(\d+)-\d+/\.metadata$")
INPUTS = {"shards": "the data set", "base": "the base model"}
SHOWN = 3
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Interrupted:
    """A training that is not finished. `differs` says what is not as in the training that is asked for now."""

    uri: str
    step: int
    steps: int | None
    bytes: int
    differs: tuple[str, ...]

    @property
    def stands(self) -> str:
        """`after step 40 of 100, 3.1 MB of checkpoints`."""
        return f"after step {self.step}{f' of {self.steps}' if self.steps else ''}, {self.bytes / 1e6:,.1f} MB of checkpoints"


def lines(found: list[Interrupted], here: str | None) -> list[str]:
    """What a person is told at a start: of the training at `here`, which is resumed, and of others with the way to them.

    `here` is None while data or base model are still to be made: which one is resumed is not known yet.
    """
    told = []
    for one in found:
        if one.uri == here:
            told.append(f"resumes {one.stands}")
        elif here is None and not one.differs:
            told.append(f"an interrupted training stands {one.stands}: it is resumed if its inputs come out the same")
        else:
            told.append(
                f"an interrupted training stands {one.stands} in {one.uri}; it has {'; '.join(one.differs)}: "
                "undo that to resume it"
            )
    told.sort(key=lambda line: not line.startswith("resumes"))
    more = len(told) - SHOWN
    return told[:SHOWN] + ([f"{more} more interrupted trainings are there"] if more > 0 else [])


def interrupted(folder: str, pipeline: str, settings: Json, inputs: Mapping[str, str] | None) -> list[Interrupted]:
    """The interrupted trainings of a pipeline below a folder of the store, the newest first.

    `settings` and the digests of the `inputs` (None: not known yet) are those of the training that is asked for.
    """
    found = []
    for uri, files in trainings(folder):
        steps = sorted((int(match[1]), name) for name in files if (match := CHECKPOINT.search(name)))
        notes = read(uri, NOTES) or (read(uri, f"{steps[-1][1].removesuffix(METADATA)}{STATE}") if steps else None)
        if not steps or notes is None or notes.get("pipeline", pipeline) != pipeline:
            continue
        asked = part(notes, "settings")
        found.append(
            Interrupted(
                uri,
                steps[-1][0],
                asked.get("steps"),
                sum(files.values()),
                tuple(differences(asked, settings, {name: notes.get(name) for name in INPUTS}, inputs)),
            )
        )
    return sorted(found, key=lambda one: -one.step)


def trainings(folder: str) -> Iterator[tuple[str, dict[str, int]]]:
    """URI of each training's folder, and its files by their path in it, with their sizes."""
    fs, path = filesystem(folder)
    grouped: dict[str, dict[str, int]] = {}
    for name, info in fs.find(path, detail=True).items():
        training, _, rest = name[len(path) :].lstrip("/").partition("/")
        if rest:
            grouped.setdefault(training, {})[rest] = info["size"]
    yield from ((f"{folder}/{training}", files) for training, files in sorted(grouped.items()))


def read(uri: str, name: str) -> dict[str, Any] | None:
    """A JSON object of a training's folder; None where there is none that can be read."""
    with contextlib.suppress(OSError):
        return read_json(f"{uri}/{name}")
    return None


def part(notes: Json, name: str) -> dict[str, Any]:
    """A section of notes; an empty one where there is none."""
    found = notes.get(name)
    return found if isinstance(found, dict) else {}


def differences(then: Json, now: Json, had: Json, inputs: Mapping[str, str] | None) -> Iterator[str]:
    """`train.lr: 0.001, now 0.01` for every setting that is another, then the inputs that are."""
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            yield f"train.{name}: {then.get(name)!r}, now {now.get(name)!r}"
    if inputs is not None:
        yield from (
            f"another {what.removeprefix('the ')}" for name, what in INPUTS.items() if had[name] != inputs[name]
        )


def take_notes(
    uri: str, pipeline: str, settings: Json, inputs: Mapping[str, str], code: Mapping[str, str]
) -> list[str]:
    """Leave what `interrupted` reads later; gives the modules whose code is not that of the last attempt."""
    before = read(uri, NOTES) or {}
    old = part(before, "code") or code
    changed = sorted(name for name in {*old, *code} if old.get(name) != code.get(name))
    known = before.get("code_versions")
    versions = (known if isinstance(known, int) else 1) + bool(changed)
    notes = {"pipeline": pipeline, "settings": settings, **inputs, "code": code, "code_versions": versions}
    write_json(f"{uri}/{NOTES}", notes, indent=1)
    return changed
