from __future__ import annotations

import io
import json
import os
import resource
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components import noted
from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.context import StepContext
from components.artifacts.store import ArtifactStore
from components.errors import Unusable, UserError
from components.media_files.root import MediaRoot, require_inside
from components.model_files.settings import codec_of
from components.pipeline.config import PipelineConfig
from components.preprocess.encode import Encoder
from components.preprocess.figures import histogram, statistics
from components.preprocess.graph import ChunkWorker, Report, raise_stop, read_lines, table_schema
from components.preprocess.outcome import Outcome, collect
from components.preprocess.rejected import require_within_budget
from components.preprocess.scan import Chunk, chunks_of
from components.preprocess.step import last_line, run
from components.shards.writer import ROWS_PER_GROUP, index_schema, row_groups, write_index
from components.tracking.runs import SilentTracker
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.tiles import tile_images
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.families.plm.weights import save_companions
from plm_model.packs.example import NO_TARGET
from plm_model.records.record import SCHEMA

TOKENIZER = Path(__file__).parents[3] / "configs" / "tokenizers" / "plm_tiny" / "tokenizer.json"
ContextMaker = Callable[..., StepContext]


def png(shade: int, size: tuple[int, int] = (12, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def asked(id: str, image: str | None = None, answer: str = "7", question: str = "Which digit?", **keys: Any) -> str:
    turns = [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]
    return json.dumps({"id": id, **({"image": image} if image else {}), "conversations": turns, **keys})


def config(max_bad_fraction: float = 0.5, **settings: Any) -> PipelineConfig:
    preprocess = {"max_tokens": 128, "rows_per_shard": 4, "max_bad_fraction": max_bad_fraction, **settings}
    architecture = {
        "vision": {"image_size": 28, "width": 32, "layers": 1, "heads": 2},
        "decoder": {"vocab_size": 1010, "dim": 32, "layers": 1, "heads": 2, "kv_heads": 1, "hidden_dim": 64},
        "image_token_id": 1002,
        "processor": {"vision_input_type": "thumb+tile", "max_num_tiles": 4},
    }
    model = {"tokenizer": str(TOKENIZER), "architecture": architecture}
    return PipelineConfig.model_validate({"preprocess": preprocess, "model": model})


class Place:
    """A storage root with a media folder, where data sets can be made and preprocessed."""

    def __init__(self, folder: Path) -> None:
        self.media = folder / "media"
        self.media.mkdir(parents=True)
        self.store = ArtifactStore(str(folder / "storage"), folder / "cache")

    def dataset(self, train: Sequence[str], test: Sequence[str] | None = None) -> Artifact:
        key = StepKey("convert", {"train": str(train), "test": str(test)})
        with self.store.create(key) as out:
            out.schema = SCHEMA
            out.links["media"] = str(self.media)
            for split, lines in (("train", train), ("test", test)):
                if lines is not None:
                    with out.open(f"{split}.jsonl", "w") as file:
                        file.write("".join(line + "\n" for line in lines))
        artifact = self.store.find(key)
        assert artifact is not None
        return artifact

    def model(self, settings: PipelineConfig) -> Artifact:
        """What there is of a base model beside its weights."""
        key = StepKey("base", config=settings.model.model_dump())
        if (found := self.store.find(key)) is not None:
            return found
        with self.store.create(key) as out, tempfile.TemporaryDirectory() as folder:
            described = PLMConfig.from_dict(settings.model.architecture)
            save_companions(described, Tokenizer.from_file(str(settings.model.tokenizer)), folder)
            out.add_tree(folder)
        return self.model(settings)

    def preprocess(self, settings: PipelineConfig, dataset: Artifact, context: StepContext) -> Artifact:
        inputs = {"dataset": dataset, "model": self.model(settings)}
        key = StepKey("preprocess", {"dataset": dataset.digest}, {"parallelism": settings.preprocess.parallelism})
        with self.store.create(key) as out:
            run(settings.preprocess, inputs, out, context)
        artifact = self.store.find(key)
        assert artifact is not None
        return artifact


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


TRAIN = [
    asked("a", "a.png"),
    asked("b", "b.png", source="radiology"),
    asked("c", question="Is <|image|> a tag?", answer="Yes"),
    asked("d", "missing.png"),
    asked("e", "cut.png"),
    asked("f", "empty.png"),
    '{"id": "g", "conversations": [',
    asked("a2", "gone.png"),
    asked("h", "b.png", answer="long " * 200),
    "",
    asked("i", "folder"),
    asked("j", "b.png", answer="\n8"),
    asked("k"),
]
TEST = [asked("l", "a.png"), asked("m", "gone.png")]


@pytest.fixture(scope="module")
def made(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
    """A data set with every kind of bad row, preprocessed once."""
    folder = tmp_path_factory.mktemp("made")
    place = Place(folder)
    fill(place.media)
    context = StepContext(SilentTracker(), lambda text: None, folder / "cache", str(folder / "resume"))
    yield place.preprocess(config(0.7), place.dataset(TRAIN, TEST), context)


def fill(media: Path) -> None:
    (media / "a.png").write_bytes(png(10))
    (media / "b.png").write_bytes(png(20))
    (media / "cut.png").write_bytes(png(30, (64, 64))[:-30])
    (media / "empty.png").write_bytes(b"")
    (media / "folder").mkdir()


def index(artifact: Artifact, split: str = "train") -> list[dict[str, Any]]:
    return pq.read_table(artifact.local(f"{split}/index.parquet")).to_pylist()


def stored(artifact: Artifact, entry: Mapping[str, Any], split: str = "train") -> dict[str, Any]:
    return pq.read_table(artifact.local(f"{split}/{entry['shard']}")).to_pylist()[entry["row"]]


def rejected(path: Path) -> list[tuple[str, int, str | None, str]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["file"], row["line"], row["id"], row["reason"]) for row in rows]


def test_bad_rows_are_rejected_with_file_line_and_reason(made: Artifact) -> None:
    found = rejected(made.local("rejected.jsonl"))
    assert [row[:3] for row in found] == [
        ("train.jsonl", 4, "d"),
        ("train.jsonl", 5, "e"),
        ("train.jsonl", 6, "f"),
        ("train.jsonl", 7, None),
        ("train.jsonl", 8, "a2"),
        ("train.jsonl", 9, "h"),
        ("train.jsonl", 11, "i"),
        ("test.jsonl", 2, "m"),
    ]
    reasons = [row[3] for row in found]
    assert reasons[0] == "missing.png: no such file"
    assert reasons[1].startswith("cut.png: damaged image")
    assert reasons[2] == "empty.png: empty file"
    assert reasons[3].startswith("broken JSON: ")
    assert reasons[4] == "gone.png: no such file"
    assert reasons[5].startswith("answer does not fit")
    assert reasons[6] == "folder: is a folder"
    assert reasons[7] == "gone.png: no such file"


def test_good_rows_are_indexed_in_the_order_of_the_lines(made: Artifact) -> None:
    assert [entry["id"] for entry in index(made)] == ["a", "b", "c", "j", "k"]
    assert [entry["id"] for entry in index(made, "test")] == ["l"]


def test_index_says_where_a_row_lies_and_what_it_costs(made: Artifact) -> None:
    for entry in index(made):
        row = stored(made, entry)
        targets = np.array(row["targets"])
        assert row["id"] == entry["id"]
        assert entry["tokens"] == len(row["tokens"]) == row["tokens_n"]
        assert entry["supervised"] == (targets != NO_TARGET).sum() == row["supervised"]
        assert entry["media"] == row["media_n"]


def test_media_are_kept_as_encoded_bytes_that_give_the_counted_tiles(made: Artifact) -> None:
    entry = index(made)[0]
    row = stored(made, entry)
    assert [(item["kind"], item["data"]) for item in row["media"]] == [("image", png(10))]
    tiles = tile_images([png(10)], PLMConfig.from_dict(config().model.architecture).processor, 28)
    placeholders = row["tokens"].count(1002)
    assert len(tiles) == entry["media"] == placeholders == 5


def test_source_is_the_rows_own_or_its_file(made: Artifact) -> None:
    assert [entry["source"] for entry in index(made)[:2]] == ["train.jsonl", "radiology"]


def test_record_is_kept_whole(made: Artifact) -> None:
    assert json.loads(stored(made, index(made)[1])["record"]) == json.loads(TRAIN[1])


def test_literal_image_token_is_text(made: Artifact) -> None:
    entry = next(entry for entry in index(made) if entry["id"] == "c")
    assert entry["media"] == 0
    assert 1002 not in stored(made, entry)["tokens"]


def test_statistics_count_what_is_there(made: Artifact) -> None:
    figures = made.read_json("statistics.json")
    assert (figures["train"]["examples"], figures["train"]["rejected"], figures["train"]["media"]) == (5, 7, 15)
    assert figures["train"]["tokens"] == sum(entry["tokens"] for entry in index(made))
    assert sum(figures["train"]["token_lengths"].values()) == 5
    assert figures["train"]["media_bytes"] == len(png(10)) + 2 * len(png(20))
    assert figures["train"]["sources"] == {"radiology": 1, "train.jsonl": 4}


def test_bytes_do_not_depend_on_the_number_of_workers(
    place: Place, ray_cluster: None, step_context: ContextMaker
) -> None:
    fill(place.media)
    dataset = place.dataset([asked(str(n), ("a.png", "b.png", "cut.png")[n % 3]) for n in range(30)])
    alone = place.preprocess(config(parallelism=1), dataset, step_context())
    together = place.preprocess(config(parallelism=4), dataset, step_context())
    assert len([name for name in alone.files if "shard" in name]) == 8
    assert alone.digest == together.digest


def test_one_row_is_enough(place: Place, ray_cluster: None, step_context: ContextMaker) -> None:
    context = step_context()
    artifact = place.preprocess(config(0.0), place.dataset([asked("a")], []), context)
    assert [entry["shard"] for entry in index(artifact)] == ["shard-00000.parquet"]
    assert "1 of 1 example," in artifact.local("audit.html").read_text()
    assert context.tracker.files == ["audit.html"]


def test_audit_page_shows_every_source_and_counts_what_is_left_out(made: Artifact) -> None:
    page = made.local("audit.html").read_text()
    assert "6 of 6 examples" in page and "8 rows could not be used" in page
    assert all(f"<td>{source}</td>" in page for source in ("train.jsonl", "test.jsonl", "radiology"))


def test_too_many_bad_rows_stop_the_step_and_leave_the_rejected_to_read(
    place: Place, ray_cluster: None, step_context: ContextMaker, tmp_path: Path
) -> None:
    dataset = place.dataset([asked("a"), asked("b", "x.png"), asked("c")])
    expected = r"1 of 3 rows are bad, more than preprocess.max_bad_fraction=0.3 .*train.jsonl:2: x.png: no such file"
    with pytest.raises(UserError, match=expected) as caught:
        place.preprocess(config(0.3), dataset, step_context())
    path = tmp_path / "resume" / "rejected.jsonl"
    assert str(path) in str(caught.value)
    assert rejected(path) == [("train.jsonl", 2, "b", "x.png: no such file")]


def test_link_out_of_the_data_root_stops_the_step(
    place: Place, ray_cluster: None, step_context: ContextMaker, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    os.symlink(tmp_path / "secret.png", place.media / "link.png")
    with pytest.raises(UserError, match=r"train.jsonl:2: 'link.png' is a link that leads out of the data root"):
        place.preprocess(config(), place.dataset([asked("a"), asked("b", "link.png")]), step_context())


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.png", "a/../../x.png", "s3://b/x.png", "file:///etc/passwd", "//etc/passwd", "."]
)
def test_path_out_of_the_data_root_stops_the_step(
    place: Place, ray_cluster: None, step_context: ContextMaker, path: str
) -> None:
    with pytest.raises(UserError, match=r"^train.jsonl:2: .*(out of the data root|a URL|the data root itself)"):
        place.preprocess(config(), place.dataset([asked("a"), asked("b", path)]), step_context())


@pytest.mark.parametrize("path", ["x.png", "images/x.png", "a..b/x.png", "x:y.png", "..\\x.png", "C:/x.png", "~/x"])
def test_ordinary_paths_are_inside(path: str) -> None:
    require_inside(path)


def test_records_of_another_format_are_refused_with_the_way_to_mend_it(
    place: Place, step_context: ContextMaker
) -> None:
    key = StepKey("convert")
    with place.store.create(key) as out, out.open("train.jsonl", "w") as file:
        file.write(asked("a") + "\n")
    dataset = place.store.find(key)
    assert dataset is not None
    with pytest.raises(UserError, match=r"its format is none, and records-1 is needed; run `plm convert`"):
        place.preprocess(config(), dataset, step_context())


@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_empty_data_set_is_refused(place: Place, step_context: ContextMaker, lines: list[str]) -> None:
    with pytest.raises(UserError, match=r"train.jsonl has no rows"):
        place.preprocess(config(), place.dataset(lines, [asked("a")]), step_context())


def worker(place: Place, dataset: Artifact, out_uri: str) -> tuple[ChunkWorker, Any]:
    """A worker and its first chunk of lines, without a cluster."""
    chunks = chunks_of(dataset.local("train.jsonl"), "train", rows_per_shard=4)
    encoder = Encoder(codec_of(place.model(config()), config().preprocess.max_tokens), MediaRoot(str(place.media)))
    return ChunkWorker(encoder, chunks, out_uri), read_lines(chunks[0], 0, dataset.uri)


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "x" * 300 + "/y.png", "a\0.png", "loop.png", "folder"])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_name_that_no_file_can_have_is_a_rejected_row(place: Place, tmp_path: Path, name: str, kind: str) -> None:
    (place.media / "folder").mkdir()
    (place.media / "loop.png").symlink_to("loop.png")
    work, lines = worker(place, place.dataset([asked("a"), asked("b", **{kind: name})]), str(tmp_path / "out"))
    good, bad = work(lines).to_pylist()
    assert good["reason"] is None and bad["id"] == "b"
    assert bad["reason"].endswith(": is a folder") or "no file can have this name" in bad["reason"]


def test_full_disk_stops_the_step_with_the_error_of_the_system(place: Place, tmp_path: Path) -> None:
    work, lines = worker(place, place.dataset([asked("a", answer="x" * 50)]), str(tmp_path / "out"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        stopped = work(lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(OSError, match="File too large"):
        raise_stop(stopped)


def test_worker_reads_and_writes_an_object_store(s3_bucket: str, place: Place, tmp_path: Path) -> None:
    place.store = ArtifactStore(f"s3://{s3_bucket}/root", tmp_path / "cache")
    dataset = place.dataset([asked("a"), asked("b", "x.png"), asked("c")])
    with place.store.create(StepKey("media")) as out, out.open("x.png") as file:
        file.write(png(1))
    media = place.store.find(StepKey("media"))
    assert media is not None
    place.media = media.uri  # type: ignore[assignment]
    work, lines = worker(place, dataset, f"s3://{s3_bucket}/out")
    reports = work(lines).to_pylist()
    assert [(row["id"], row["reason"], row["row"]) for row in reports] == [
        ("a", None, 0),
        ("b", None, 1),
        ("c", None, 2),
    ]
    with ArtifactStore(f"s3://{s3_bucket}/out", tmp_path).fs.open(f"{s3_bucket}/out/train/shard-00000.parquet") as file:
        assert pq.read_table(file).num_rows == 3


def test_chunks_cover_every_line_once(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(["{}", "", *("{}" for _ in range(8))]))
    chunks = chunks_of(path, "train", rows_per_shard=4)
    lines = [line for n, chunk in enumerate(chunks) for line in read_lines(chunk, n, str(tmp_path))["line"].to_pylist()]
    assert lines == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [chunk.rows for chunk in chunks] == [4, 4, 1]


def reported(chunk: int, lines: Sequence[int], **fields: Any) -> pa.Table:
    """What a worker says of lines: of odd ones that they are bad."""
    rows = [
        Report("train", line, f"id {line}", "odd", **fields)
        if line % 2
        else Report("train", line, f"id {line}", None, f"source {line % 3}", f"shard-{chunk}", line, line, 1, 2, 3, 4)
        for line in lines
    ]
    return pa.Table.from_pylist([{**asdict(row), "chunk": chunk} for row in rows], table_schema())


CHUNKS = [Chunk("train", 0, 0, 1, rows=4), Chunk("train", 1, 100, 5, rows=3)]


def test_what_became_of_the_lines_is_in_their_order_however_the_chunks_end() -> None:
    told: list[int] = []
    tables = [reported(1, [5, 7, 8]), reported(0, [3, 4]), reported(0, [1, 2])]
    outcome = collect(tables, CHUNKS, told.append)
    assert told == [3, 5, 7]
    assert outcome.good["train"]["line"].to_pylist() == [2, 4, 8]
    assert outcome.good["train"]["source"].to_pylist() == ["source 2", "source 1", "source 2"]
    assert [(row["file"], row["line"], row["id"]) for row in outcome.bad_rows()] == [
        ("train.jsonl", line, f"id {line}") for line in (1, 3, 5, 7)
    ]
    assert outcome.good["test"].num_rows == outcome.bad["test"].num_rows == 0


def noticed(line: int, notes: Sequence[str], split: str = "train", **fields: Any) -> Report:
    return Report(split, line, f"id {line}", None, "a", "shard-00000.parquet", line, 10, notes=notes, **fields)


def outcome_of(*reports: Report) -> Outcome:
    chunks = [Chunk(split, 0, 0, 1, rows=sum(r.split == split for r in reports)) for split in ("train", "test")]
    tables = [
        pa.Table.from_pylist([{**asdict(r), "chunk": n} for r in reports if r.split == chunk.split], table_schema())
        for n, chunk in enumerate(chunks)
        if chunk.rows
    ]
    return collect(tables[::-1], chunks, lambda rows: None)


def test_rows_are_used_repaired_or_rejected_and_what_was_noticed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(noted.REPAIRS, "mended", "rows mended")
    monkeypatch.setitem(noted.OBSERVATIONS, "odd", "odd rows")
    outcome = outcome_of(
        noticed(1, ["odd"], place="labels.csv:17"),
        noticed(2, ["mended", "odd"]),
        Report("train", 3, "c", "broken", place="labels.csv:19"),
        noticed(4, []),
        noticed(1, ["odd"], split="test"),
    )
    figures = statistics(outcome)
    counts = {name: figures["train"][name] for name in ("rows", "used", "repaired", "rejected", "examples")}
    assert counts == {"rows": 4, "used": 2, "repaired": 1, "rejected": 1, "examples": 3}
    assert figures["train"]["noted"] == {
        "mended": {"meaning": "rows mended", "rows": 1, "first": ["train.jsonl:2"]},
        "odd": {"meaning": "odd rows", "rows": 2, "first": ["labels.csv:17", "train.jsonl:2"]},
    }
    assert last_line(figures, outcome) == (
        "4 examples, 1 of them repaired, 1 rows rejected; "
        "1 rows mended, such as train.jsonl:2; 3 odd rows, such as labels.csv:17"
    )


def test_a_bad_row_is_named_by_the_line_of_the_users_file_where_that_is_known(tmp_path: Path) -> None:
    outcome = outcome_of(Report("train", 3, "c", "broken", place="labels.csv:19"), Report("train", 4, "d", "cut"))
    with pytest.raises(UserError, match=r"allows: labels\.csv:19: broken; train\.jsonl:4: cut\."):
        require_within_budget(outcome, 0.0, str(tmp_path))
    lines = (tmp_path / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line).get("place") for line in lines] == ["labels.csv:19", None]


def test_the_encoder_hands_on_the_line_of_the_users_file(place: Place) -> None:
    encoder = Encoder(codec_of(place.model(config()), config().preprocess.max_tokens), MediaRoot(str(place.media)))
    row = encoder.encode(asked("a", from_line="labels.csv:17").encode(), "train")
    assert (row["place"], row["notes"]) == ("labels.csv:17", ["text_only"])
    with pytest.raises(Unusable) as raised:
        encoder.encode(asked("a", "none.png", from_line="labels.csv:18").encode(), "train")
    assert raised.value.place == "labels.csv:18"


@pytest.mark.parametrize(
    "tables",
    [
        [reported(0, [1, 2, 3, 4])],
        [reported(0, [1, 2, 3, 4]), reported(1, [5, 6])],
        [reported(0, [1, 2, 3, 4]), reported(1, [5, 6, 7]), reported(1, [5, 6, 7])],
        [reported(0, [1, 2, 3, 4]), reported(1, [5, 6, 6])],
        [reported(0, [1, 2, 3, 4]), reported(1, [5, 6]), reported(1, [6])],
    ],
)
def test_a_line_that_got_lost_or_was_done_twice_is_noticed(tables: Sequence[pa.Table]) -> None:
    with pytest.raises(RuntimeError, match=r"came back"):
        collect(tables, CHUNKS, lambda rows: None)


def test_an_index_is_the_same_bytes_however_its_rows_came(tmp_path: Path) -> None:
    lines = range(2, 20002, 2)
    whole = pa.Table.from_pylist(reported(0, lines).to_pylist(), index_schema())
    pq.write_table(whole, tmp_path / "whole", compression="zstd")
    chunks = [Chunk("train", n, n, n * 200 + 2, rows=100) for n in range(100)]
    tables = [reported(n, lines[n * 100 : n * 100 + 100]) for n in range(100)]
    place = tables[0].schema.get_field_index("shard")
    tables = [table.set_column(place, "shard", pa.array(["shard-0"] * 100)) for table in tables]
    write_index(tmp_path / "pieces", collect(tables[::-1], chunks, lambda rows: None).good["train"])
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_memory_hardly_grows_with_the_rows() -> None:
    def tables() -> Iterator[pa.Table]:
        for n in range(10):
            yield reported(n, range(1000 * n + 2, 1000 * n + 1002, 2))

    chunks = [Chunk("train", n, n, 1000 * n + 2, rows=500) for n in range(10)]
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    outcome = collect(tables(), chunks, lambda rows: None)
    kept = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    assert kept / sum(table.num_rows for table in outcome.good.values()) < 150, "bytes a row"


def test_memory_of_the_scan_hardly_grows_with_the_rows(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(f'{{"id": "an id of a usual length, {n}"}}\n' for n in range(5000)))
    tracemalloc.start()
    chunks_of(tmp_path / "train.jsonl", "train", rows_per_shard=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / 5000 < 10, "bytes a row"


def test_row_groups_are_small_where_media_are_large() -> None:
    rows = [{"media": [{"data": bytes(10 << 20)}]}] * 9 + [{"media": []}] * (2 * ROWS_PER_GROUP)
    sizes = [len(group) for group in row_groups(rows)]
    assert sizes[:2] == [4, 4] and max(sizes) == ROWS_PER_GROUP and sum(sizes) == len(rows)


def test_histogram_has_upper_bounds_that_double() -> None:
    assert histogram([1, 2, 3, 4, 5, 64, 65]) == {"1": 1, "2": 1, "4": 2, "8": 1, "64": 1, "128": 1}
