"""The mask audit: a page that shows, for a sample of the shards, what the model sees and on which tokens it is trained.

The sample is the same for the same data, takes from every source in turn, and is read back from the shards, so that the page
shows what training will read and not what was meant to be written.
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.artifacts.files import filesystem
from components.media_files.thumbnails import thumbnail
from components.preprocess.figures import by_source
from components.preprocess.graph import Report
from components.preprocess.outcome import Outcome
from plm_model.family import Codec
from plm_model.packs.example import NO_TARGET

FILE = "audit.html"
EXAMPLES = 24
SHOWN_PICTURES = 8  # of one example
SHOWN_SOURCES = 40
LONG_RUN, RUN_EDGE = 500, 200  # tokens: of a longer run only its ends are shown
PICTURE_SIDE = 240
ONE_OF_MANY_SIDE = 120
COLUMNS = ("tokens", "targets", "media")

Candidate = tuple[int, str, str, int]  # hash of the id, id, split, row of the split's table
Kind = Literal["supervised", "unsupervised", "media", "wrong"]


@dataclass(frozen=True)
class ShownToken:
    """Tokens that make whole characters together; `ids` is what a reader sees on pointing at them."""

    text: str
    ids: str
    special: bool


@dataclass(frozen=True)
class TokenRun:
    """Neighbouring tokens of one kind: `count` of them, of which the middle is left out where there are many."""

    kind: Kind
    count: int
    start: Sequence[ShownToken] = ()
    end: Sequence[ShownToken] = ()
    hidden: int = 0


@dataclass(frozen=True)
class Audited:
    """One example of the page."""

    report: Report
    runs: Sequence[TokenRun]
    pictures: Sequence[Mapping[str, Any]]
    hidden_pictures: int


def audit_page(
    out_uri: str, outcome: Outcome, codec: Codec, read: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """The whole page for the shards that lie in `out_uri`; every text is escaped, every picture is inlined.

    `read` is what was noticed when the rows were read (convert's `noted.json`); kinds that are seen again are those of here.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page.filters |= {"number": "{:,}".format}
    chosen = choose(outcome.good, EXAMPLES)
    rows = read_rows(out_uri, chosen)
    sources = source_figures(outcome.good)
    return page.get_template(FILE).render(
        examples=[audited(report, row, codec) for report, row in zip(chosen, rows, strict=True)],
        sources=sources[:SHOWN_SOURCES],
        hidden_sources=max(0, len(sources) - SHOWN_SOURCES),
        good=sum(table.num_rows for table in outcome.good.values()),
        bad=sum(table.num_rows for table in outcome.bad.values()),
        noted=[kind for _, kind in sorted({**(read or {}), **outcome.all_noted().to_json()}.items())],
        placeholder=codec.placeholder,
    )


def choose(good: Mapping[str, Any], most: int) -> list[Report]:
    """Up to `most` examples, from each source in turn, the largest source first; within a source by a hash of the id."""
    sizes: Counter[str] = Counter()
    first: dict[str, list[Candidate]] = {}
    for candidate, source in candidates(good):
        sizes[source] += 1
        kept = first.setdefault(source, [])
        kept.append(candidate)
        if len(kept) == 8 * most:
            kept[:] = heapq.nsmallest(most, kept)
    ordered = [heapq.nsmallest(most, first[source]) for source in sorted(sizes, key=lambda name: (-sizes[name], name))]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*ordered))
    chosen = itertools.islice((candidate for candidate in turns if candidate is not None), most)
    return [report_of(good[split], split, number) for _, _, split, number in chosen]


def candidates(good: Mapping[str, Any]) -> Iterator[tuple[Candidate, str]]:
    """Each example with its source."""
    for split, table in good.items():
        numbers = itertools.count()
        for batch in table.select(["id", "source"]).to_batches():
            for id, source in zip(batch["id"].to_pylist(), batch["source"].to_pylist(), strict=True):
                yield (zlib.crc32(id.encode()), id, split, next(numbers)), source


def report_of(table: Any, split: str, number: int) -> Report:
    (row,) = table.slice(number, 1).to_pylist()
    return Report(split=split, **row)


def source_figures(good: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sums by source and split, the largest first."""
    rows = [{**row, "split": split} for split, table in good.items() for row in by_source(table)]
    return sorted(rows, key=lambda row: (-row["examples"], row["source"], row["split"]))


def read_rows(out_uri: str, reports: Sequence[Report]) -> list[dict[str, Any]]:
    """The shards' rows of these examples: `tokens`, `targets` and `media`; one shard is open at a time."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    wanted: dict[str, list[int]] = {}
    for report in reports:
        wanted.setdefault(f"{report.split}/{report.shard}", []).append(report.row)
    for shard, numbers in wanted.items():
        for number, row in shard_rows(out_uri, shard, sorted(numbers)):
            rows[shard, number] = row
    return [rows[f"{report.split}/{report.shard}", report.row] for report in reports]


def shard_rows(out_uri: str, shard: str, numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of these ascending numbers; only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    fs, folder = filesystem(out_uri)
    with fs.open(f"{folder}/{shard}", "rb") as source, pq.ParquetFile(source) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            here = [number for number in numbers if first <= number < first + rows]
            if here:
                table = file.read_row_group(group, columns=list(COLUMNS))
                yield from ((number, table.slice(number - first, 1).to_pylist()[0]) for number in here)
            first += rows


def audited(report: Report, row: Mapping[str, Any], codec: Codec) -> Audited:
    """What the page shows of one row of a shard."""
    media = row["media"] or ()
    shown = spread(len(media), SHOWN_PICTURES)
    side = PICTURE_SIDE if len(media) == 1 else ONE_OF_MANY_SIDE
    return Audited(
        report=report,
        runs=token_runs(row["tokens"], row["targets"], codec),
        pictures=[{**thumbnail(media[n]["data"], side), "kind": media[n]["kind"], "number": n} for n in shown],
        hidden_pictures=len(media) - len(shown),
    )


def spread(count: int, most: int) -> list[int]:
    """Numbers below `count`: all, or `most` of them at even distances, first and last included."""
    return list(range(count)) if count <= most else [round(n * (count - 1) / (most - 1)) for n in range(most)]


def token_runs(tokens: Sequence[int], targets: Sequence[int], codec: Codec) -> list[TokenRun]:
    """The tokens of an example in runs of one kind; the last target follows the last token, as in the conversation.

    Worked example: tokens [b i i q], targets [-100 -100 -100 a] give unsupervised b, media i i, unsupervised q, supervised a.
    A target that is not the next token makes a run `wrong`, shown as what the model is asked to say there.
    """
    sequence = [*tokens, *targets[-1:]] if targets[-1] != NO_TARGET else list(tokens)
    asked = [NO_TARGET, *targets]
    placeholder = codec.placeholder.token
    kinds = [kind_of(token, target, placeholder) for token, target in zip(sequence, asked, strict=False)]
    runs = []
    for kind, group in itertools.groupby(range(len(sequence)), key=kinds.__getitem__):
        places = list(group)
        ids = [asked[place] if kind == "wrong" else sequence[place] for place in places]
        runs.append(run_of(kind, ids, codec))
    return runs


def kind_of(token: int, target: int, placeholder: int) -> Kind:
    if target not in (NO_TARGET, token):
        return "wrong"
    if token == placeholder:
        return "media" if target == NO_TARGET else "wrong"
    return "unsupervised" if target == NO_TARGET else "supervised"


def run_of(kind: Kind, ids: Sequence[int], codec: Codec) -> TokenRun:
    if kind == "media":
        return TokenRun(kind, len(ids))
    if len(ids) <= LONG_RUN:
        return TokenRun(kind, len(ids), pieces(ids, codec))
    start, end = pieces(ids[:RUN_EDGE], codec), pieces(ids[-RUN_EDGE:], codec)
    return TokenRun(kind, len(ids), start, end, len(ids) - 2 * RUN_EDGE)


def pieces(ids: Sequence[int], codec: Codec) -> list[ShownToken]:
    """Tokens as text; those that only together make a character stay together."""
    found: list[ShownToken] = []
    waiting: list[int] = []
    for place, token in enumerate(ids):
        waiting.append(token)
        text = codec.text(waiting)
        if text.endswith("\ufffd") and len(waiting) < 4 and place + 1 < len(ids):
            continue
        special = bool(text) and not codec.text(waiting, special=False)
        found.append(ShownToken(text, " ".join(map(str, waiting)), special))
        waiting = []
    return found
