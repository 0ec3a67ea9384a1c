"""Every type of record, from its row in `train.jsonl` to the pack that training takes, in one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.errors import UserError
from components.media_files.root import MediaRoot
from components.preprocess.encode import Encoder
from components.preprocess.graph import ChunkWorker, read_lines
from components.preprocess.scan import chunks_of
from components.shards.reader import Place, ShardReader, read_index
from components.shards.writer import write_index
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.collator import Collator
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.families.plm.tiles import video_tiles
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.media.video import decode_frame
from plm_model.nn.config import DecoderConfig
from plm_model.packs.example import NO_TARGET
from plm_model.packs.stored import Item, StoreOptions
from tests.components.training_set import artifact
from tests.plm_model.video_files import picture, write_video

TOKENIZER = Tokenizer.from_file(Path(__file__).parents[3] / "configs" / "tokenizers" / "plm_tiny")
CONFIG = PLMConfig(
    vision=VisionConfig(image_size=28, width=32, layers=1, heads=2),
    decoder=DecoderConfig(
        vocab_size=TOKENIZER.vocab_size, dim=32, layers=1, heads=2, kv_heads=1, hidden_dim=64, max_seq_len=512
    ),
    image_token_id=TOKENIZER.image_id,
    processor=ProcessorConfig(max_num_tiles=4, max_video_frames=8, system_prompt="Be kind."),
)


def said(question: str, answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]}


BOX = [[12, 8, 36, 24]]  # of an image of 96 x 64: [125,125,500,500]
BOXES = {"0": [20, 12, 70, 50], "1": None, "5": [0, 0, 40, 40]}
ROWS: dict[str, dict[str, Any]] = {
    "text": said("Which digit?", "7"),
    "image": {"image": "a.png", **said("<image>\nWhat is it?", "Waves")},
    "multi_image": {"image": ["a.png", "b.png"], **said("<image> or <image>?", "The first")},
    "image_region": {
        "image": "a.png",
        "bbox": BOX,
        "width": 96,
        "height": 64,
        **said("What is in <|bbox0|>?", "Waves in <|bbox0|>"),
    },
    "video": {"video": "v.mp4", **said("<video>\nWhat happens?", "Waves move")},
    "part_of_a_video": {"video": "v.mp4", "start_time": 0.5, "end_time": 1.0, **said("What happens?", "Waves move")},
    "RCap": {"video": "v.mp4", "bbox_map": BOXES, **said("What happens in the red rectangle?", "Waves move")},
    "RTLoc": {"video": "v.mp4", "bbox_map": BOXES, **said("When do waves move?", "[0, 13]")},
    "RDCap": {"video": "v.mp4", "bbox_map": BOXES, **said("Describe.", "[0, 13]: Waves\n[14, 31]: Out of view")},
    "FGQA": {"video": "v.mp4", "question": "What moves?", "answer": "Waves", "metadata": {"domain": "sea"}},
    "caption_of_an_image": {"image": "a.png", "text": "Waves."},
    "caption_of_a_video": {"video": "v.mp4", "text": "Waves move."},
    "image_and_video": {"image": "a.png", "video": "v.mp4", **said("What is it?", "Waves")},
}
TILES = {"text": 0, "image": 5, "multi_image": 2, "image_region": 5, "part_of_a_video": 4} | {
    "caption_of_an_image": 5,
    "image_and_video": 5,
}
BAD = {
    "missing_video": ({"video": "none.mp4", "text": ""}, "none.mp4: no such file"),
    "folder": ({"video": "folder", "text": ""}, "folder: is a folder"),
    "broken_video": ({"video": "broken.mp4", "text": ""}, "broken.mp4: not a video that can be read: Invalid data found"),
    "no_frames": ({"video": "empty.mp4", "text": ""}, "empty.mp4: not a video that can be read"),
    "image_as_video": ({"video": "a.png", "text": ""}, "a.png: not a video that can be read"),
    "clip_behind_the_end": ({"video": "v.mp4", "start_time": 9, "text": ""}, "v.mp4: start_time 9 s is after the end"),
    "missing_image": ({"image": ["a.png", "c.png"], "text": "<image><image>"}, "c.png: no such file"),
    "fewer_tags": (ROWS["multi_image"] | said("<image>?", "a"), "the questions hold 1 <image> tags, but .* 2 images"),
    "box_outside_the_image": (ROWS["image_region"] | {"bbox": [[96, 0, 20, 9]]}, r"`bbox\[0\]`: .* is outside the image"),
    "other_size": (ROWS["image_region"] | {"width": 64, "height": 96}, "image of 64x96 .* a.png has 96x64; .* swapped"),
    "nan_box": (ROWS["image_region"] | {"bbox": [[float("nan"), 0, 2, 9]]}, r"`bbox\[0\]`: a box must be four numbers"),
    "missing_box": (ROWS["image_region"] | {"bbox": []}, r"<\|bbox0\|> stands in the text, but `bbox` has 0 boxes"),
    "box_outside_the_frame": (
        ROWS["RCap"] | {"bbox_map": {"0": [96, 0, 99, 9]}}, "v.mp4: frame 0: the box .* is outside the image of 96x64"
    ),
    "missing_frame": (ROWS["RCap"] | {"bbox_map": {"48": [0, 0, 9, 9]}}, "bbox_map names frame 48, but .* has 12 frames"),
    "no_sampled_box": (ROWS["RCap"] | {"bbox_map": {"1": [0, 0, 9, 9]}}, "no box on any of the 8 sampled frames"),
    "too_many_frames": (ROWS["video"] | said("What?", "long " * 500), "answer does not fit"),
}  # fmt: skip


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(picture(number)).save(folder / name)
    write_video(folder / "v.mp4", 12, fps=6, options={"g": 6, "bf": 2})
    (folder / "broken.mp4").write_bytes(bytes(1000))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "folder").mkdir()
    return folder


def preprocessed(rows: Mapping[str, Mapping[str, Any]], media: str, out: Path) -> list[dict[str, Any]]:
    """Write the rows' shard and index below `out` as preprocessing does; what became of each row."""
    out.mkdir(exist_ok=True)
    text = "".join(json.dumps({"id": name, **row}) + "\n" for name, row in rows.items())
    (out / "train.jsonl").write_text(text)
    (chunk,) = chunks_of(out / "train.jsonl", "train", len(rows))
    worker = ChunkWorker(Encoder(Codec(TOKENIZER, CONFIG), MediaRoot(media)), [chunk], str(out))
    reports = worker(read_lines(chunk, 0, str(out))).to_pylist()
    good: Sequence[dict[str, Any]] = [
        report for report in reports if report["reason"] is None and report["stop"] is None
    ]
    if good:
        write_index(out / "train/index.parquet", pa.Table.from_pylist(list(good)))
    return reports


@pytest.fixture(scope="module")
def made(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert not [report["reason"] for report in preprocessed(ROWS, str(media), out) if report["reason"]]
    return out


def entry(made: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the index, and of the shard."""
    index = pq.read_table(made / "train/index.parquet").to_pylist()
    found = next(row for row in index if row["id"] == name)
    return found, pq.read_table(made / "train" / found["shard"]).to_pylist()[found["row"]]


@pytest.mark.parametrize("name", ROWS)
def test_index_counts_tiles_and_frames(made: Path, name: str) -> None:
    index, row = entry(made, name)
    frames = 0 if "video" not in ROWS[name] or "image" in ROWS[name] else TILES.get(name, 8)
    assert (index["media"], index["frames"]) == (TILES.get(name, 8), frames)
    assert index["media"] == row["tokens"].count(CONFIG.image_token_id)
    assert {item["kind"] for item in row["media"]} == ({"frame"} if frames else {"image"} if index["media"] else set())


@pytest.mark.parametrize("name", ROWS)
def test_the_assistant_is_supervised_with_its_boxes_as_text(made: Path, name: str) -> None:
    targets = np.array(entry(made, name)[1]["targets"])
    turns, row = ROWS[name].get("conversations"), ROWS[name]
    answer = turns[1]["value"] if turns else row.get("text", row.get("answer"))
    spoken = TOKENIZER.decode(targets[targets != NO_TARGET], skip_special=False)
    answer = answer.replace("<|bbox0|>", "[125,125,500,500]")
    assert spoken == f"<|start_header_id|>assistant<|end_header_id|>\n\n{answer}<|eot_id|><|end_of_text|>"


@pytest.fixture
def read(made: Path) -> Callable[[str], Item]:
    """The example of a type as training reads it."""
    index = read_index(made / "train/index.parquet")
    reader = ShardReader(artifact(made, "preprocess"), Collator(CONFIG))
    return lambda name: reader.read(index.place(list(ROWS).index(name)))


def test_training_packs_examples_of_all_types(read: Callable[[str], Item]) -> None:
    items = [read(name) for name in ROWS]
    batch = Collator(CONFIG).batch(items)
    assert len(batch.media["tiles"]) == sum(TILES.get(name, 8) for name in ROWS)


@pytest.mark.parametrize(
    ("name", "clip"),
    [("part_of_a_video", {"start": 0.5, "end": 1.0}), ("RCap", {"boxes": {0: (20, 12, 70, 50), 5: (0, 0, 40, 40)}})],
)
def test_training_sees_the_frames_of_the_clip_with_their_boxes(
    read: Callable[[str], Item], media: Path, name: str, clip: dict[str, Any]
) -> None:
    assert (read(name).media["tiles"] == video_tiles(media / "v.mp4", CONFIG.processor, 28, **clip)).all()


def test_frames_stored_for_another_size_are_refused(made: Path) -> None:
    place, _ = entry(made, "video")
    reader = ShardReader(artifact(made, "preprocess"), Collator(PLMConfig()))
    said = r"example video holds frames of 28 pixels, but .* vision.image_size is 448; preprocess again"
    with pytest.raises(UserError, match=said):
        reader.read(Place(f"train/{place['shard']}", place["row"]))


@pytest.mark.parametrize("name", BAD)
def test_bad_row_is_reported_with_its_reason(media: Path, tmp_path: Path, name: str) -> None:
    rows = {"good": ROWS["text"], name: BAD[name][0]}
    reports = preprocessed(rows, str(media), tmp_path / "out")
    assert [(report["split"], report["line"], report["id"]) for report in reports] == [
        ("train", 1, "good"),
        ("train", 2, name),
    ]
    with pytest.raises(ValueError, match=BAD[name][1]):
        raise ValueError(reports[1]["reason"])


REPAIRED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "box_over_the_edge": (ROWS["image_region"] | {"bbox": [[90, 0, 20, 9]]}, ["box_clamped"]),
    "one_frame_more": (
        ROWS["RCap"] | {"bbox_map": BOXES | {"12": [0, 0, 40, 40]}},
        ["box_frames_ignored"],
    ),
    "drawn_over_the_edge": (ROWS["RCap"] | {"bbox_map": {"0": [0, 0, 99, 9]}}, ["drawn_box_clipped"]),
    "number": (ROWS["image"] | said("What?", 7), ["number_as_text"]),  # type: ignore[arg-type]
}


@pytest.mark.case("D17")
def test_rows_that_the_original_trains_on_are_repaired_as_there(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = {name: row for name, (row, _) in REPAIRED.items()}
    reports = preprocessed(rows, str(media), out)
    assert [(report["reason"], report["notes"]) for report in reports] == [
        (None, notes) for _, notes in REPAIRED.values()
    ]
    _, region = entry(out, "box_over_the_edge")
    assert "[937,000,999,140]" in TOKENIZER.decode(region["tokens"])
    _, number = entry(out, "number")
    assert TOKENIZER.decode(number["tokens"]).endswith("assistant\n\n7")
    frames = read_frames_of(entry(out, "one_frame_more")[1])
    assert (
        frames == video_tiles(media / "v.mp4", CONFIG.processor, 28, boxes={0: (20, 12, 70, 50), 5: (0, 0, 40, 40)})
    ).all()


def read_frames_of(row: dict[str, Any]) -> np.ndarray:
    return np.stack([decode_frame(item["data"]) for item in row["media"]])


@pytest.mark.case("D16")
def test_boxes_of_a_picture_that_exif_turns_are_compared_with_the_upright_one(media: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(media / "turned.jpg", exif=exif.tobytes())
    stored = ROWS["image_region"] | {"image": "turned.jpg"}
    upright = stored | {"width": 64, "height": 96, "bbox": [[8, 12, 24, 36]]}
    bad, good = preprocessed({"stored": stored, "upright": upright}, str(media), tmp_path / "out")
    assert good["reason"] is None and good["notes"] == []
    assert bad["reason"] == (
        "`bbox` counts on an image of 96x64 (`width`, `height`), but upright turned.jpg has 64x96; "
        "width and height are swapped, or EXIF turns the image and not its boxes"
    )


def test_path_of_a_video_out_of_the_root_is_refused(media: Path, tmp_path: Path) -> None:
    (report,) = preprocessed({"a": {"video": "../v.mp4", "text": ""}}, str(media), tmp_path / "out")
    assert report["stop"] == "train.jsonl:1: '../v.mp4' leads out of the data root; write a path relative to it"


def test_link_to_a_video_out_of_the_root_is_refused(media: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "v.mp4").symlink_to(media / "v.mp4")
    (report,) = preprocessed({"a": {"video": "v.mp4", "text": ""}}, str(root), tmp_path / "out")
    assert "'v.mp4' is a link that leads out of the data root" in report["stop"]


def test_video_on_an_object_store_is_read_from_a_copy(s3_bucket: str, media: Path, made: Path, tmp_path: Path) -> None:
    from components.artifacts.files import filesystem

    fs, root = filesystem(f"s3://{s3_bucket}/videos")
    fs.put_file(str(media / "v.mp4"), f"{root}/v.mp4")
    out = tmp_path / "out"
    rows = {"video": ROWS["video"], "gone": {"video": "w.mp4", "text": ""}}
    reports = preprocessed(rows, f"s3://{s3_bucket}/videos", out)
    assert [report["reason"] for report in reports] == [None, "w.mp4: no such file"]
    assert entry(out, "video")[1]["media"] == entry(made, "video")[1]["media"]


def test_jpeg_makes_stored_frames_smaller(media: Path) -> None:
    sizes = []
    for quality in (None, 80):
        encoder = Encoder(Codec(TOKENIZER, CONFIG), MediaRoot(str(media)), StoreOptions(frame_jpeg_quality=quality))
        row = encoder.encode(json.dumps({"id": "a", **ROWS["video"]}).encode(), "x")
        sizes.append(sum(len(item["data"]) for item in row["media"]))
    assert sizes[1] < sizes[0]
