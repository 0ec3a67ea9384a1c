"""Seeded damage to bytes, texts and JSON values: each call gives another one, the same for the same generator."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from typing import Any

ODD_TEXTS = (
    "",
    " ",
    "\0",
    "x" * 5000,
    "<image>",
    "<image><image>",
    "<video>",
    "<|bbox0|>",
    "<|image|>",
    "<|eot_id|>",
    "../good-0.png",
    "/etc/passwd",
    "https://example.com/a.png",
    "file:///etc/passwd",
    "C:\\a.png",
    "~/a.png",
    "a\\b.png",
    "a%20b.png",
    " bad.png ",
    "data:image/png;base64," + "iVBORw0KGgo" * 40,
    "a\nb",
    "a\u2028b\u0085c",
    "\u202eabc",
    "\ufeff",
    unicodedata.normalize("NFD", "übung.png"),
    "😀" * 50,
    "{answer}",
    "NaN",
    '"',
    ",",
)
ODD_VALUES: tuple[Any, ...] = (
    *ODD_TEXTS,
    None,
    True,
    0,
    -1,
    7,
    1.5,
    -0.0,
    1e308,
    10**40,
    [],
    {},
    [[]],
    [None],
    {"": ""},
    [0, 0, 0, 0],
    [-5, -5, 1e9, 1e9],
    {"0": [0, 0, 10, 10], "99999": [1, 2, 3, 4]},
)
RAW = (b"NaN", b"1e999", b'"\\ud83d"', b"[" * 600 + b"]" * 600, b"9" * 5000, b"tru", b"'x'", b'{"a":1,"a":2}')
INSERTED = (b"\0", b'"', b"\n", b"\r", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80")
KEYS = (
    "image",
    "images",
    "video",
    "videos",
    "image_path",
    "text",
    "question",
    "answer",
    "id",
    "bbox",
    "from",
    "value",
    "",
)


def mutated_bytes(data: bytes, random: random.Random) -> bytes:
    """One to four bytes changed, a part cut out, zeroed, doubled or put in, or the end cut off."""
    kind = random.choice(("flip", "flip", "flip", "zero", "cut", "end", "double", "insert"))
    first = random.randrange(len(data) + 1)
    last = min(len(data), first + random.choice((1, 4, 30, 300)))
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(random.randint(1, 4) if data else 0):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == "insert":
        return data[:first] + random.choice(INSERTED) + data[first:]
    middle = {"zero": bytes(last - first), "cut": b"", "double": data[first:last] * 2, "end": b""}[kind]
    return data[:first] + middle + (b"" if kind == "end" else data[last:])


def mutated_row(row: dict[str, Any], random: random.Random) -> bytes:
    """A JSON line of a row in which a value, a key or the text itself is another."""
    row = json.loads(json.dumps(row))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice((replace, replace, remove, rename, double))(row, random)
    line = json.dumps(row, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.2:
        place = line.find(b": ", random.randrange(len(line) or 1))
        line = line[: place + 2] + random.choice(RAW) + line[place + 2 :] if place > 0 else line
    return mutated_bytes(line, random) if random.random() < 0.3 else line


def holders(value: Any) -> list[Any]:
    """Every list and object within a value that is not empty."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [each for part in inner for each in holders(part)]
    return [value, *found] if isinstance(value, list | dict) and value else found


def place_in(row: dict[str, Any], random: random.Random) -> tuple[Any, Any] | None:
    """A list or object of the row, and one of its keys."""
    found = holders(row)
    if not found:
        return None
    holder = random.choice(found)
    return holder, random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))


def changing(change: Callable[[Any, Any, random.Random], None]) -> Callable[[dict[str, Any], random.Random], None]:
    """A change of one place of a row."""

    def apply(row: dict[str, Any], random: random.Random) -> None:
        if (place := place_in(row, random)) is not None:
            change(*place, random)

    return apply


@changing
def replace(holder: Any, key: Any, random: random.Random) -> None:
    holder[key] = random.choice(ODD_VALUES)


@changing
def remove(holder: Any, key: Any, random: random.Random) -> None:
    del holder[key]


@changing
def rename(holder: Any, key: Any, random: random.Random) -> None:
    if isinstance(holder, dict):
        holder[random.choice(KEYS)] = holder.pop(key)
    else:
        holder.reverse()


@changing
def double(holder: Any, key: Any, random: random.Random) -> None:
    if isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[random.choice(KEYS)] = holder[key]
