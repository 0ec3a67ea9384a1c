"""A training conversation as it stands in `dataset.jsonl`, checked when it is read.

    {"id": "7", "image": "images/7.png", "conversations": [{"from": "human", "value": "Which digit?"},
                                                           {"from": "assistant", "value": "7"}]}

`image` is a path or a list of paths; a row without `conversations` needs `text` and becomes an empty question with that
answer. Keys that are not read here are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["human", "assistant"]


class RecordError(ValueError):
    """A row that is not a conversation; the message names the key and what is wrong with it."""


class GptRoleError(RecordError):
    """A row that uses LLaVA's role `gpt`, read without the option that accepts it."""


@dataclass(frozen=True)
class Turn:
    """One thing said by one side."""

    role: Role
    text: str


@dataclass(frozen=True)
class Record:
    """A conversation about zero or more images. `row` is the mapping it was read from, with every key."""

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    row: Mapping[str, Any]


def parse_record(row: Mapping[str, Any], *, accept_gpt_role: bool = False) -> Record:
    """Check a JSON row and give it types; RecordError naming the key that is wrong."""
    if not isinstance(row, Mapping):
        raise RecordError(f"a row must be a JSON object, not {type(row).__name__}")
    return Record(
        id=parse_id(row.get("id")),
        images=parse_images(row.get("image")),
        turns=parse_turns(row, accept_gpt_role),
        row=dict(row),
    )


def parse_id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise RecordError("`id` must be a non-empty string" if value is not None else "`id` is missing")
    require_unicode(value, "id")
    return value


def parse_images(value: Any) -> tuple[str, ...]:
    paths = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise RecordError("`image` must be a path or a list of paths")
    return tuple(paths)


def parse_turns(row: Mapping[str, Any], accept_gpt_role: bool) -> tuple[Turn, ...]:
    conversation = row.get("conversations")
    if conversation is None:
        text = row.get("text")
        if not isinstance(text, str):
            raise RecordError("`conversations` is missing, and there is no `text` in its place")
        require_unicode(text, "text")
        return Turn("human", ""), Turn("assistant", text)
    if not isinstance(conversation, list) or not conversation:
        raise RecordError("`conversations` must be a non-empty list")
    return tuple(parse_turn(turn, f"conversations[{n}]", accept_gpt_role) for n, turn in enumerate(conversation))


def parse_turn(turn: Any, where: str, accept_gpt_role: bool) -> Turn:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise RecordError(f"`{where}` must be an object with the strings `from` and `value`")
    require_unicode(turn["value"], f"{where}.value")
    role = turn.get("from")
    if role == "gpt":
        if not accept_gpt_role:
            raise GptRoleError(f"`{where}.from` is `gpt`; write `assistant`, or set convert.accept_gpt_role=true")
        role = "assistant"
    if role not in ("human", "assistant"):
        raise RecordError(f"`{where}.from` is {role!r}; it must be `human` or `assistant`")
    return Turn(role, turn["value"])


def require_unicode(text: str, where: str) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer or file takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"`{where}` holds half of a surrogate pair at character {error.start}") from error
