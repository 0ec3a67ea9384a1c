"""PLM-Video-Human's published rows become rows that PLM trains on, `{video, conversations, bbox_map | start_time, end_time}`.

    python -m components.formats.plm_video_human --task rcap --rows rcap.parquet --boxes boxes.jsonl --to rcap.jsonl

The rows say which masklet of a video they are about, the boxes of the masklets are in another file. Frames are those of the
6-fps files of SA-V. Answers count them as the model sees them, 0 to 31: `int(frame / (total_frames / 32))`.
What cannot be used goes to `<to>.rejected.jsonl` with the reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import Unusable, UserError

SHOWN_FRAMES = 32
QUESTIONS = {
    "rcap": (
        "The video has {total} frames; a red rectangle marks one subject in it. "
        "Describe what this subject does from frame {start} to frame {end}."
    ),
    "rtloc": (
        "A red rectangle marks one subject in the video. In which frames does this happen: {caption}\n"
        "Answer with the first and the last frame as [start, end], both between 0 and 31."
    ),
    "rdcap": (
        "A red rectangle marks one subject in the video. Tell everything that happens to it, an event a line, as "
        "[start, end]: description, with frames between 0 and 31. Where it is out of view, say that."
    ),
}
Boxes = Mapping[tuple[str, int], Mapping[str, Any]]


def rcap(row: Mapping[str, Any], boxes: Boxes) -> dict[str, Any]:
    """Region captioning: what happens in the red box, and when is given."""
    total, (start, end) = total_frames(row), span(row, row)
    question = QUESTIONS["rcap"].format(total=total, start=start, end=end)
    return about_region(row, boxes, question, text(row, "caption"))


def rtloc(row: Mapping[str, Any], boxes: Boxes) -> dict[str, Any]:
    """Temporal localization: when it happens, and what is given."""
    start, end = span(row, row)
    return about_region(row, boxes, QUESTIONS["rtloc"].format(caption=text(row, "caption")), f"[{start}, {end}]")


def rdcap(row: Mapping[str, Any], boxes: Boxes) -> dict[str, Any]:
    """Dense captioning: what happens when, from beginning to end."""
    events = row.get("dense_captions")
    if not isinstance(events, list) or not events:
        raise Unusable("`dense_captions` must be a list with at least one event")
    lines = [f"[{start}, {end}]: {text(event, 'caption')}" for event in events for start, end in [span(event, row)]]
    return about_region(row, boxes, QUESTIONS["rdcap"], "\n".join(lines))


def fgqa(row: Mapping[str, Any], video: str) -> dict[str, Any]:
    """A question about a part of an untrimmed video; `video` is a path with {keys} of the row's metadata in it."""
    metadata: Any = row.get("metadata") or {}
    try:
        path = video.format(**metadata, segment_id=row.get("segment_id"))
    except (KeyError, IndexError) as error:
        raise Unusable(f"`metadata` has no {error}, which --video names") from None
    start, end = metadata.get("source_start_time"), metadata.get("source_end_time")
    if not all(isinstance(time, int | float) for time in (start, end)) or not 0 <= start < end:
        raise Unusable(f"`metadata.source_start_time` {start!r} and `source_end_time` {end!r} must be seconds in order")
    turns = conversation(text(row, "question"), text(row, "answer"))
    return {"id": text(row, "qa_id"), "video": path, "start_time": start, "end_time": end, "conversations": turns}


def about_region(row: Mapping[str, Any], boxes: Boxes, question: str, answer: str) -> dict[str, Any]:
    """A row about one masklet of a video, with the box of each frame."""
    video, masklet = text(row, "video"), row.get("masklet_id")
    found = boxes.get((video, masklet)) if isinstance(masklet, int) else None
    if not found:
        raise Unusable(f"no boxes for masklet {masklet!r} of {video}")
    drawn = {str(frame): box for frame, box in found.items() if box}
    return {"id": str(row["uid"]), "video": video, "bbox_map": drawn, "conversations": conversation(question, answer)}


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "assistant", "value": answer}]


def span(event: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, int]:
    """First and last frame of an event among the 32 that are shown, e.g. frames 60 and 119 of 240 are 8 and 15."""
    start, end, total = event.get("start_frame"), event.get("end_frame"), total_frames(row)
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= total):
        raise Unusable(f"`start_frame` {start!r} and `end_frame` {end!r} must be in order, within {total} frames")
    return shown(start, total), shown(end, total)


def shown(frame: int, total: int) -> int:
    return min(int(frame / (total / SHOWN_FRAMES)), SHOWN_FRAMES - 1)


def total_frames(row: Mapping[str, Any]) -> int:
    total = row.get("total_frames")
    if not isinstance(total, int) or total < 1:
        raise Unusable(f"`total_frames` is {total!r}; it must be a positive number")
    return total


def text(row: Mapping[str, Any], key: str) -> str:
    """A text of the row on one line."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"`{key}` must be a text")
    return " ".join(value.split())


TASKS: dict[str, Callable[[Mapping[str, Any], Any], dict[str, Any]]] = {
    "rcap": rcap,
    "rtloc": rtloc,
    "rdcap": rdcap,
    "fgqa": fgqa,
}


def convert_file(
    task: str, rows: Path, to: Path, boxes: Path | None = None, video: str | None = None
) -> dict[str, int]:
    """Convert a JSONL or Parquet file of published rows; how many became rows of `to`, and how many did not."""
    if task == "fgqa" and not video:
        raise UserError("--task fgqa needs --video, for example '{source_dataset}/{source_video_id}.mp4'")
    if task != "fgqa" and not boxes:
        raise UserError(f"--task {task} needs --boxes, a JSONL with `video`, `masklet_id` and `bbox` (frame -> box)")
    known = video if task == "fgqa" else read_boxes(boxes or Path())
    counts = {"rows": 0, "rejected": 0}
    rejected = to.with_name(f"{to.name}.rejected.jsonl")
    with open(to, "w", encoding="utf-8") as good, open(rejected, "w", encoding="utf-8") as bad:
        for number, row in enumerate(read_any(rows), start=1):
            try:
                good.write(json.dumps(TASKS[task](row, known), ensure_ascii=False) + "\n")
                counts["rows"] += 1
            except Unusable as error:
                reject = {"file": str(rows), "row": number, "reason": str(error), "values": row}
                bad.write(json.dumps(reject, ensure_ascii=False, default=str) + "\n")
                counts["rejected"] += 1
    return counts


def read_boxes(path: Path) -> Boxes:
    """(video, masklet) -> frame -> [x1, y1, x2, y2] in pixels, or null where it is not in view."""
    found = {}
    for number, row in enumerate(read_any(path), start=1):
        if not isinstance(row.get("bbox"), Mapping) or not {"video", "masklet_id"} <= row.keys():
            raise UserError(f"{path}:{number}: must have `video`, `masklet_id` and `bbox` (frame -> box)")
        found[row["video"], row["masklet_id"]] = row["bbox"]
    return found


def read_any(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL or Parquet file. UserError when it is neither."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(path).iter_batches(1024):
                yield from batch.to_pylist()
            return
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _object(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object")
    return row


def main() -> int:
    """The command line; exit status 0 when at least one row was converted."""
    parser = argparse.ArgumentParser(description="PLM-Video-Human's published rows as rows that PLM trains on")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--rows", required=True, type=Path, help="JSONL or Parquet, as published")
    parser.add_argument("--boxes", type=Path, help="JSONL with video, masklet_id, bbox (frame -> [x1, y1, x2, y2])")
    parser.add_argument("--video", help="fgqa: where a video lies, e.g. '{source_dataset}/{source_video_id}.mp4'")
    parser.add_argument("--to", required=True, type=Path, help="JSONL to write")
    arguments = parser.parse_args()
    try:
        counts = convert_file(arguments.task, arguments.rows, arguments.to, arguments.boxes, arguments.video)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.to}: {counts['rows']} rows, {counts['rejected']} rejected")
    return 0 if counts["rows"] else 1


if __name__ == "__main__":
    sys.exit(main())
