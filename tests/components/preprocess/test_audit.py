"""The audit page shows what training will read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components.artifacts.files import filesystem
from components.media_files.root import MediaRoot
from components.noted import OBSERVATIONS, meaning
from components.preprocess.audit import LONG_RUN, audit_page, choose, spread, token_runs
from components.preprocess.encode import Encoder
from components.preprocess.graph import Report, table_schema
from components.preprocess.outcome import Outcome, collect
from components.preprocess.scan import Chunk
from components.shards.writer import write_shard
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.packs.example import NO_TARGET

TOKENIZER = Tokenizer.from_file(Path(__file__).parents[3] / "configs" / "tokenizers" / "plm_tiny")
CONFIG = PLMConfig.from_dict(
    {
        "vision": {"image_size": 28, "width": 32, "layers": 1, "heads": 2},
        "decoder": {"vocab_size": 1010, "dim": 32, "layers": 1, "heads": 2, "kv_heads": 1, "hidden_dim": 64},
        "image_token_id": TOKENIZER.image_id,
        "processor": {"max_num_tiles": 4},
    }
)
CODEC = Codec(TOKENIZER, CONFIG)
HEADER = "<|start_header_id|>assistant<|end_header_id|>↵\n↵\n"


class Page(HTMLParser):
    """The texts of the page's marked runs, by class, and every address in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.runs: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.inside: list[str] = []
        self.in_tokens = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.add(tag)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        self.in_tokens = self.in_tokens or values.get("class") == "tokens"
        if tag == "span" and self.in_tokens:
            self.runs.append((values.get("class") or "", ""))
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self.inside:
            self.inside.pop()
        elif tag == "article":
            self.in_tokens = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            kind, text = self.runs[-1]
            self.runs[-1] = (kind, text + data)

    def of(self, kind: str) -> list[str]:
        return [text for found, text in self.runs if found == kind]


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def row(folder: Path, id: str, turns: Sequence[str], images: int = 0, source: str = "a") -> dict[str, Any]:
    names = [f"{id}-{number}.png" for number in range(images)]
    for name in names:
        (folder / name).write_bytes(picture(len(name)))
    said = [{"from": ("human", "assistant")[n % 2], "value": text} for n, text in enumerate(turns)]
    record = {"id": id, "conversations": said, "source": source, **({"image": names} if names else {})}
    return Encoder(CODEC, MediaRoot(str(folder))).encode(json.dumps(record).encode(), source)


def report(row: dict[str, Any], number: int) -> Report:
    costs = {"supervised": row["supervised"], "media": row["media_n"], "frames": row["frames"]}
    return Report("train", number + 1, row["id"], None, row["source"], "s.parquet", number, row["tokens_n"], **costs)


def outcome_of(reports: Sequence[Report]) -> Outcome:
    table = pa.Table.from_pylist([{**asdict(report), "chunk": 0} for report in reports], table_schema())
    return collect([table], [Chunk("train", 0, 0, 1, rows=len(reports))], lambda rows: None)


def html_of(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    more: Sequence[Report] = (),
    read: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    fs, out = filesystem(str(folder / "out"))
    write_shard(fs, f"{out}/train/s.parquet", rows)
    reports = [report(row, number) for number, row in enumerate(rows)]
    return audit_page(str(folder / "out"), outcome_of([*reports, *more]), CODEC, read)


def page_of(folder: Path, *rows: dict[str, Any]) -> Page:
    return Page(html_of(folder, rows))


@pytest.mark.case("D19")
def test_what_was_noticed_when_the_rows_were_read_is_on_the_page(tmp_path: Path) -> None:
    """A kind that is seen again, as text only is here, has the count of the examples."""
    read = {
        kind: {"meaning": meaning(kind), "rows": 1200, "first": ["a.csv:7"]} for kind in ("repeated_row", "text_only")
    }
    noticed = Report(
        "train", 2, "y", source="x", shard="s.parquet", row=0, tokens=9, notes=["text_only"], place="a.csv:9"
    )
    html = html_of(tmp_path, [row(tmp_path, "x", ["Hi.", "Hello."])], [noticed], read)
    assert "<td>equal to an earlier row</td><td>a.csv:7</td><td>1,200</td>" in html
    assert "<td>text only, without image or video</td><td>a.csv:9</td><td>1</td>" in html


def test_supervised_runs_are_the_answers_and_nothing_else(tmp_path: Path) -> None:
    page = page_of(tmp_path, row(tmp_path, "x", ["Hi.", "Hello.", "Which one?", "The 7th, naïve 🌼."]))
    assert page.of("s") == [f"{HEADER}Hello.<|eot_id|>", f"{HEADER}The 7th, naïve 🌼.<|eot_id|><|end_of_text|>"]
    assert not page.of("w") and not page.of("i")
    assert page.of("u")[1].endswith("Which one?<|eot_id|>")


def test_image_placeholders_are_one_chip_each_with_their_number(tmp_path: Path) -> None:
    one = row(tmp_path, "x", ["What?", "A."], images=1)
    two = row(tmp_path, "y", ["<image> and <image>", "B."], images=2, source="b")
    assert page_of(tmp_path, one).of("i") == ["<|image|> × 5"]
    assert page_of(tmp_path, two).of("i") == ["<|image|> × 1"] * 2


def test_text_of_users_is_escaped_and_nothing_is_fetched(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=http://x/y.png>"
    rows = [row(tmp_path, evil.replace("/", "_"), ["Hi", "Ho"], 0, evil), row(tmp_path, "x", [evil, evil], 1)]
    html = html_of(tmp_path, rows)
    page = Page(html)
    assert "script" not in page.tags and "<script" not in html
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)
    assert any(evil in text for text in page.of("s"))


def test_a_target_that_is_not_the_next_token_is_marked_wrong(tmp_path: Path) -> None:
    broken = row(tmp_path, "x", ["Hi", "7"])
    targets = np.array(broken["targets"])
    place = int(np.flatnonzero(targets != NO_TARGET)[2])
    targets[place] = TOKENIZER.encode("9")[0]
    page = page_of(tmp_path, broken | {"targets": targets})
    assert page.of("w") == ["9"]


def test_trained_image_placeholders_are_marked_wrong(tmp_path: Path) -> None:
    broken = row(tmp_path, "x", ["Hi", "7"], images=1)
    targets = np.array(broken["targets"])
    targets[list(broken["tokens"]).index(TOKENIZER.image_id) - 1] = TOKENIZER.image_id
    assert page_of(tmp_path, broken | {"targets": targets}).of("w") == ["<|image|>"]


def test_a_long_run_shows_its_ends_and_how_much_is_between(tmp_path: Path) -> None:
    page = page_of(tmp_path, row(tmp_path, "x", ["Count.", "first" + " and" * 3 * LONG_RUN + " last"]))
    (said,) = page.of("s")
    assert said.startswith(f"{HEADER}first and") and said.endswith("last<|eot_id|><|end_of_text|>")
    assert "more tokens" in said and len(said) < 4 * LONG_RUN


def test_runs_cover_every_token_once(tmp_path: Path) -> None:
    made = row(tmp_path, "x", ["Hi " * 900, "Ho " * 900], images=1)
    runs = token_runs(list(made["tokens"]), list(made["targets"]), CODEC)
    assert sum(run.count for run in runs) == made["tokens_n"] + 1
    assert sum(run.count for run in runs if run.kind == "supervised") == made["supervised"]


def test_many_pictures_are_sampled_with_the_first_and_the_last(tmp_path: Path) -> None:
    html = html_of(tmp_path, [row(tmp_path, "x", ["<image>" * 20, "Many."], images=20)])
    assert 'alt="image 1"' in html and 'alt="image 20"' in html and "and 12 more" in html
    assert spread(20, 8) == [0, 3, 5, 8, 11, 14, 16, 19]


def test_the_sample_takes_from_every_source_whatever_the_order() -> None:
    row = {"source": "big", "tokens_n": 9, "supervised": 1, "media_n": 0, "frames": 0}
    reports = [report(row | {"id": str(n), "source": "small" if n == 700 else "big"}, n) for n in range(1000)]
    good = outcome_of(reports).good["train"]
    chosen = choose({"train": good}, 24)
    assert len(chosen) == 24 and [one.source for one in chosen].count("small") == 1
    assert choose({"train": good.take(list(range(1000))[::-1])}, 24) == chosen
    assert max(one.line for one in chosen) > 500


def test_the_same_shards_give_the_same_page(tmp_path: Path) -> None:
    rows = [row(tmp_path, str(number), ["What?", "A."], images=number % 2) for number in range(9)]
    assert html_of(tmp_path, rows) == html_of(tmp_path, rows)


def test_what_was_noticed_is_a_table_with_its_first_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBSERVATIONS, "odd", "odd <rows>")
    good = row(tmp_path, "x", ["Q", "A"])
    assert "Noticed" not in html_of(tmp_path, [good])
    html = html_of(tmp_path, [good], [replace(report(good, 1), row=0, notes=["odd"], place="labels.csv:17")])
    assert "<tr><td>odd &lt;rows&gt;</td><td>labels.csv:17</td><td>1</td></tr>" in html


@pytest.mark.parametrize("rejected", [0, 1, 2])
def test_rejected_rows_are_counted(tmp_path: Path, rejected: int) -> None:
    good = row(tmp_path, "x", ["Q", "A"])
    bad = [Report("train", 2 + n, "x", "broken") for n in range(rejected)]
    html = html_of(tmp_path, [good], bad)
    assert {0: "could not" not in html, 1: "1 row could" in html, 2: "2 rows could" in html}[rejected]
