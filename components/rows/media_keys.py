"""Under which keys a row names what it shows: the column that `ingest.image_column` names, else the first of the usual ones.

Ingest brings these files and convert trains on them. A setting decides alone: where the column is named, no other is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

IMAGE, VIDEO = "image", "video"
IMAGE_KEYS = (IMAGE, "images", "image_path", "image_file", "img", "img_path", "file_name")
VIDEO_KEYS = (VIDEO, "videos", "video_path")
LISTS = ("images", "videos")  # keys that are never a mere note beside another one
ANY_FILE = "file_name"  # a key of files of any kind: its name must say which
VIDEO_FILE = re.compile(r".*\.(mp4|m4v|mov|webm|avi|mkv|mpe?g|flv|ogv)", re.IGNORECASE)
IMAGE_FILE = re.compile(r".*\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)", re.IGNORECASE)


def image_keys(image_column: str) -> tuple[str, ...]:
    """The keys that may name images; `image_column` is `image` where no setting names another."""
    return IMAGE_KEYS if image_column == IMAGE else (image_column,)


def media_column(columns: Collection[str], image_column: str) -> str:
    """The column of a table that names files; `image_column` where it has none."""
    return next((key for key in (*image_keys(image_column), *VIDEO_KEYS) if key in columns), image_column)


def with_usual_keys(values: Mapping[str, Any], image_column: str) -> Mapping[str, Any]:
    """The row with its images under `image_column` and its video under `video`, whichever keys name them."""
    found = dict(values)
    video = next((key for key in VIDEO_KEYS if names_files(values.get(key))), None)
    image = next((key for key in image_keys(image_column) if names_media(key, values)), None)
    if video is None and image == ANY_FILE and VIDEO_FILE.fullmatch(values[image]):
        video, image = image, None
    if image not in (None, image_column):
        found[image_column] = found.pop(image)
    if video is not None:
        name = found.pop(video)
        found[VIDEO] = name[0] if isinstance(name, list) and len(name) == 1 else name
    return found


def names_files(value: Any) -> bool:
    """Whether a value is a name or a list of names, of which none is empty."""
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name.strip() for name in names)


def names_media(key: str, values: Mapping[str, Any]) -> bool:
    """Whether what stands under a key is names of media."""
    value = values.get(key)
    if key == ANY_FILE:
        return isinstance(value, str) and bool(IMAGE_FILE.fullmatch(value) or VIDEO_FILE.fullmatch(value))
    return names_files(value)


def unread_media(values: Mapping[str, Any], image_column: str) -> list[str]:
    """Keys of a row `with_usual_keys` that speak of media beside those that are read."""
    read = (image_column, VIDEO)
    keys = [key for key in (*IMAGE_KEYS, *VIDEO_KEYS) if key not in read and values.get(key) not in (None, "", [])]
    keys = [key for key in keys if key != ANY_FILE or names_media(key, values)]
    if values.get(image_column) or values.get(VIDEO):
        return [
            key for key in keys if key in LISTS and values[key] not in (values.get(image_column), values.get(VIDEO))
        ]
    return keys


def names_a_picture(values: Mapping[str, Any]) -> bool:
    """Whether any value of a row is written like the name of a picture or a video."""
    names = (value for value in values.values() if isinstance(value, str) and len(value) < 500 and " " not in value)
    return any(IMAGE_FILE.fullmatch(name) or VIDEO_FILE.fullmatch(name) for name in names)
