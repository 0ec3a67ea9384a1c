"""The before/after page: one HTML file that needs nothing else, readable on a phone and on a laptop."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from components.compare.samples import Compared, Outcome
from components.compare.task import Comparison
from components.media_files.root import MediaRoot
from components.media_files.thumbnails import data_uri, thumbnail
from plm_model.media.video import read_clip

SHOWN_TEXT = 600  # characters of a question or an answer
SHOWN_IMAGES = 4  # of one question
ORDER: tuple[Outcome, ...] = ("fixed", "broken", "wrong", "right")
TITLES: Mapping[Outcome, str] = {
    "fixed": "Fixed by training",
    "broken": "Broken by training",
    "wrong": "Still wrong",
    "right": "Right both times",
}
GRADED: Mapping[Outcome, str] = {
    "fixed": "Better after training",
    "broken": "Worse after training",
    "wrong": "As good as before",
    "right": "As good as can be, both times",
}


def choose_examples(pairs: Sequence[Compared], most: int) -> list[Compared]:
    """Up to `most` examples: half fixed, a quarter broken, a quarter still wrong; what is short is filled up in that order.

    Within an outcome the choice follows a hash of the id: the same every time, and spread over a sorted data set.
    """
    groups: dict[Outcome, list[Compared]] = {outcome: [] for outcome in ORDER}
    for pair in sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).digest()):
        groups[pair.outcome].append(pair)
    shares = {"fixed": (most + 1) // 2, "broken": most // 4, "wrong": most // 4}
    taken = {outcome: min(len(group), shares.get(outcome, 0)) for outcome, group in groups.items()}
    for outcome, group in groups.items():
        taken[outcome] += min(len(group) - taken[outcome], most - sum(taken.values()))
    return [pair for outcome in ORDER for pair in groups[outcome][: taken[outcome]]]


def render(
    comparison: Comparison,
    tasks: Mapping[str, Mapping[str, Any]],
    examples: Sequence[Compared],
    media: MediaRoot,
    loss_png: bytes,
) -> str:
    """The whole page; every text is escaped, every image is inlined."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    main = tasks.get(comparison.task, {})
    also_before, also_after = main.get("also_before", {}), main.get("also_after", {})
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page.filters |= {"amount": amount, "change": change, "tick": tick, "clip": clip, "figure": figure, "signed": signed}
    binary = comparison.best == 1 and all(
        answer.score in (0, 1) for pair in examples for answer in (pair.before, pair.after)
    )
    titles = TITLES if binary else GRADED
    groups = [
        (outcome, titles[outcome], [card(pair, media) for pair in examples if pair.outcome == outcome])
        for outcome in ORDER
    ]
    return page.get_template("report.html").render(
        c=comparison,
        binary=binary,
        tasks=tasks if len(tasks) > 1 else {},
        also={name: (before, also_after[name]) for name, before in also_before.items() if name in also_after},
        groups=[group for group in groups if group[2]],
        shown=len(examples),
        loss=data_uri(loss_png, "image/png"),
    )


def card(pair: Compared, media: MediaRoot) -> dict[str, Any]:
    return {"pair": pair, "images": [thumbnail(data) for data in pictures(pair, media)]}


def pictures(pair: Compared, media: MediaRoot) -> list[bytes]:
    """Images of a question, or frames of its video, as encoded images."""
    clip = pair.video
    if clip is None:
        return [media.read(rel) for rel in pair.images[:SHOWN_IMAGES]]
    with media.file(clip.path) as file:
        return read_clip(file, SHOWN_IMAGES, encoded, clip.start, clip.end, name=clip.path)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def amount(score: float, best: float) -> str:
    """0.9467 of 1 -> `94.7 %`; a score on another scale as it is."""
    return f"{100 * score:.1f}\u00a0%" if best == 1 else f"{score:.3g}"


def change(gain: float, best: float) -> str:
    """0.581 of 1 -> `+58.1`, in percentage points; on another scale in its own units."""
    return (f"{100 * gain:+.1f}" if best == 1 else f"{gain:+.3g}").replace("-", "\u2212")


def tick(score: float, best: float) -> str:
    """A place on the scale: `25 %`, or `2.5` of 10."""
    return f"{100 * score:.0f} %" if best == 1 else f"{score:g}"


def figure(value: float | None) -> str:
    """A task's figure on its own scale; a dash where there is none."""
    return "\u2013" if value is None else f"{value:.4g}"


def signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "\u2212")


def clip(text: str) -> str:
    """A text short enough for a card."""
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"
