"""Makes a small data set of each kind of record, offline: `python configs/dummy_datasets.py --to runs/dummy_datasets`.

Their names in `datasets.yaml` are those of the original's examples, so that what is typed there has data to run on. Pictures
are the photographs and handwritten digits that ship with scikit-learn, videos are made of the digits. What is said is true.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.formats.plm_video_human import rcap, rdcap, rtloc
from components.ingest.sources.digits import DARKEST, load_digits

SIDE = 112  # pixels of a digit's picture
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTOS = {
    "china.jpg": "A Chinese temple of several storeys with curved, tiled roofs; behind it lies a lake.",
    "flower.jpg": "A close view of an orange flower with many petals, in front of dark leaves.",
}


def make(to: Path) -> None:
    """Write the folders `image`, `multi_image`, `image_region`, `video`, `text` and `plm_stc` below `to`."""
    digits = Digits()
    make_image(to / "image", digits)
    make_multi_image(to / "multi_image", digits)
    make_image_region(to / "image_region", digits)
    make_video(to / "video", digits)
    make_text(to / "text")
    make_regions_in_videos(to / "plm_stc", digits)


class Digits:
    """The handwritten digits, as pictures, dark on white."""

    def __init__(self) -> None:
        self.pixels, self.labels = load_digits()

    def picture(self, number: int) -> Image.Image:
        grey = 255 - (self.pixels[number] * (255 / DARKEST)).round().astype("uint8")
        return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")

    def label(self, number: int) -> int:
        return int(self.labels[number])


def make_image(folder: Path, digits: Digits) -> None:
    """Photographs to describe and digits to read, one picture each."""
    images = fresh(folder / "images")
    rows = []
    source = Path(str(importlib.util.find_spec("sklearn").origin)).parent / "datasets" / "images"  # type: ignore[union-attr]
    for name, description in PHOTOS.items():
        (images / name).write_bytes((source / name).read_bytes())
        rows.append({"image": name, "conversations": said("Describe this photograph.", description)})
    for number in range(14):
        digits.picture(number).save(images / f"digit-{number}.png")
        turns = said("Which digit is written here?", str(digits.label(number)))
        turns += said("Write it as a word.", WORDS[digits.label(number)])
        rows.append({"image": f"digit-{number}.png", "conversations": turns})
    write(folder / "annotations.jsonl", rows)


def make_multi_image(folder: Path, digits: Digits) -> None:
    """Two or three pictures in one question, each where its `<image>` stands."""
    images = fresh(folder / "images")
    rows: list[dict[str, Any]] = []
    for start in range(20, 50, 3):
        names = [f"digit-{number}.png" for number in range(start, start + 2 + start % 2)]
        numbers = [digits.label(start + place) for place in range(len(names))]
        for place, name in enumerate(names):
            digits.picture(start + place).save(images / name)
        question = f"Add these digits: {', '.join(['<image>'] * len(names))}."
        answer = f"{' + '.join(map(str, numbers))} = {sum(numbers)}"
        rows.append({"image": names, "conversations": said(question, answer)})
    write(folder / "annotations.jsonl", rows)


def make_image_region(folder: Path, digits: Digits) -> None:
    """Six digits on a sheet: where one is, and what is in a box."""
    images = fresh(folder / "images")
    rows = []
    for sheet in range(6):
        canvas = Image.new("RGB", (3 * SIDE + 40, 2 * SIDE + 30), "white")
        boxes, labels = [], []
        for place in range(6):
            number = 60 + 6 * sheet + place
            box = [10 + place % 3 * (SIDE + 10), 10 + place // 3 * (SIDE + 10), SIDE, SIDE]
            canvas.paste(digits.picture(number), (box[0], box[1]))
            boxes.append(box)
            labels.append(digits.label(number))
        canvas.save(images / f"sheet-{sheet}.png")
        place = next(place for place in range(6) if labels.count(labels[place]) == 1)
        row = {"image": f"sheet-{sheet}.png", "bbox": boxes, "width": canvas.width, "height": canvas.height}
        question = f"Where is the {WORDS[labels[place]]}? Answer with its box, [x1, y1, x2, y2]."
        rows.append({**row, "conversations": said(question, f"<|bbox{place}|>")})
        rows.append({**row, "conversations": said("Which digit is in <|bbox5|>?", str(labels[5]))})
    write(folder / "annotations.jsonl", rows)


def make_video(folder: Path, digits: Digits) -> None:
    """Videos of digits that follow one another, a second each; also about a part of the video."""
    videos = fresh(folder / "videos")
    rows: list[dict[str, Any]] = []
    for clip in range(4):
        numbers = range(120 + 5 * clip, 125 + 5 * clip)
        frames = [np.asarray(digits.picture(number)) for number in numbers for _ in range(6)]
        write_video(videos / f"clip-{clip}.mp4", frames, fps=6)
        seen = [str(digits.label(number)) for number in numbers]
        row = {"video": f"clip-{clip}.mp4"}
        rows.append({**row, "conversations": said("Which digits appear, in order?", ", ".join(seen))})
        part = {"start_time": 1, "end_time": 2.5, "conversations": said("Which digits appear?", ", ".join(seen[1:3]))}
        rows.append(row | part)
    write(folder / "annotations.jsonl", rows)


def make_text(folder: Path) -> None:
    """Conversations without any media."""
    fresh(folder)
    rows = []
    for first in range(3, 19):
        second = 7 * first % 11
        turns = said(f"What is {first} plus {second}?", str(first + second))
        turns += said("And which of the two numbers is larger?", str(max(first, second)))
        rows.append({"conversations": turns})
    write(folder / "annotations.jsonl", rows)


def make_regions_in_videos(folder: Path, digits: Digits) -> None:
    """A digit that crosses the picture and halts: captions of a region, when something happens, and all that happens."""
    videos = fresh(folder / "videos")
    published: dict[str, list[dict[str, Any]]] = {"RCap": [], "RTLoc": [], "RDCap": []}
    boxes = {}
    for clip in range(4):
        name, number = f"region-{clip}.mp4", 200 + clip
        frames, boxes[name, 0] = crossing(digits, number, other=210 + clip)
        write_video(videos / name, frames, fps=6)
        row = {"uid": clip, "video": name, "masklet_id": 0, "total_frames": len(frames)}
        moves = {"start_frame": 0, "end_frame": 31, "caption": f"The {WORDS[digits.label(number)]} moves to the right."}
        rests = {"start_frame": 32, "end_frame": 63, "caption": f"The {WORDS[digits.label(number)]} stands still."}
        published["RCap"] += [{**row, **moves}, {**row, **rests, "uid": clip + 100}]
        published["RTLoc"] += [{**row, **moves}, {**row, **rests, "uid": clip + 100}]
        published["RDCap"].append({**row, "dense_captions": [moves, rests]})
    for name, convert in (("RCap", rcap), ("RTLoc", rtloc), ("RDCap", rdcap)):
        write(folder / f"{name}.jsonl", [convert(row, boxes) for row in published[name]])


def crossing(digits: Digits, number: int, other: int) -> tuple[list[np.ndarray], dict[str, list[int]]]:
    """64 frames in which one digit moves and then rests below another, and the moving one's box [x1, y1, x2, y2]."""
    frames, boxes = [], {}
    for frame in range(64):
        canvas = Image.new("RGB", (3 * SIDE, 2 * SIDE), "white")
        canvas.paste(digits.picture(other), (SIDE, 0))
        left = 2 * SIDE * min(frame, 31) // 31
        canvas.paste(digits.picture(number), (left, SIDE))
        frames.append(np.asarray(canvas))
        boxes[str(frame)] = [left, SIDE, left + SIDE, 2 * SIDE]
    return frames, boxes


def said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]


def fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_video(path: Path, frames: Sequence[np.ndarray], fps: int) -> None:
    """An MP4 (H.264) of frames [height, width, 3] uint8."""
    import av

    height, width, _ = frames[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a small data set of each kind of record.")
    parser.add_argument("--to", type=Path, default=Path("runs/dummy_datasets"), metavar="FOLDER")
    arguments = parser.parse_args()
    make(arguments.to)
    print(f"{arguments.to}: image, multi_image, image_region, video, text, plm_stc")


if __name__ == "__main__":
    main()
