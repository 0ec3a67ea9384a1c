"""The turns of a row: who says what, which question has which answer, and what of them is not trained.

Nothing is left out without a word: whatever is not used, or not used as it stands, is one of the kinds in `notes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

Role = Literal["human", "assistant"]

ANY_TAG = re.compile("<(?:image|video)>")


class RecordError(ValueError):
    """A row that is not a conversation, or no example of the model; the message is the reason, and names the key."""


class GptRoleError(RecordError):
    """A row that uses LLaVA's role `gpt`, read without the option that accepts it."""


class TagError(RecordError):
    """A row whose questions show more images or videos than it names."""


@dataclass(frozen=True)
class Turn:
    """One thing said by one side; an answer that is not `trained` is only given."""

    role: Role
    text: str
    trained: bool = True


@dataclass(frozen=True)
class Exchange:
    """A question and its answer."""

    question: str
    answer: str
    trained: bool = True


def exchanges_of(turns: Sequence[Turn]) -> list[Exchange]:
    """Questions with their answers. An answer to nothing is skipped, of two questions in a row the later counts."""
    exchanges = []
    question: str | None = None
    for turn in turns:
        if turn.role == "human":
            question = turn.text
        elif question is not None:
            exchanges.append(Exchange(question, turn.text, turn.trained))
            question = None
    return exchanges


def parse_turns(row: Mapping[str, Any], accept_gpt_role: bool, notes: set[str]) -> tuple[Turn, ...]:
    """The turns of a row; RecordError naming what is wrong. What is noticed about them is added to `notes`."""
    conversation = row.get("conversations")
    if conversation is None:
        return parse_plain(row, notes)
    if not isinstance(conversation, list) or not conversation:
        raise RecordError("`conversations` must be a non-empty list")
    return tuple(parse_turn(turn, f"conversations[{n}]", accept_gpt_role, notes) for n, turn in enumerate(conversation))


def parse_plain(row: Mapping[str, Any], notes: set[str]) -> tuple[Turn, ...]:
    """The turns of a row without `conversations`: its `text`, or its `question` and `answer`."""
    keys = ("text",) if is_text(row.get("text")) else ("question", "answer")
    if not all(is_text(row.get(key)) for key in keys):
        raise RecordError("`conversations` is missing, and neither `text` nor `question` and `answer` is there instead")
    texts = [text_of(row[key], key, notes) for key in keys]
    return Turn("human", texts[0] if len(texts) > 1 else ""), Turn("assistant", texts[-1])


def parse_turn(turn: Any, where: str, accept_gpt_role: bool, notes: set[str]) -> Turn:
    if not isinstance(turn, Mapping) or not is_text(turn.get("value")):
        raise RecordError(f"`{where}` must be an object with the strings `from` and `value`")
    text = text_of(turn["value"], f"{where}.value", notes)
    role = turn.get("from")
    if role == "gpt":
        if not accept_gpt_role:
            raise GptRoleError(f"`{where}.from` is `gpt`; write `assistant`, or set convert.accept_gpt_role=true")
        role = "assistant"
    if role not in ("human", "assistant"):
        raise RecordError(f"`{where}.from` is {role!r}; it must be `human` or `assistant`")
    return Turn(role, text, role == "human" or is_trained(turn.get("weight"), f"{where}.weight", notes))


def is_trained(weight: Any, where: str, notes: set[str]) -> bool:
    """Whether an answer of this weight is trained. There is no weight between no and yes."""
    if weight is None:
        return True
    if not isinstance(weight, int | float):  # a bool is an int
        raise RecordError(f"`{where}` is {weight!r}; it must be 0 or 1")
    if weight not in (0, 1):
        notes.add("weight_as_1")
    return weight != 0


def is_text(value: Any) -> bool:
    """A string, or a number that stands where a string should: the original writes it as text."""
    return isinstance(value, str) or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )


def text_of(value: Any, where: str, notes: set[str]) -> str:
    """A value that `is_text`, as text. RecordError when no file can hold it."""
    if not isinstance(value, str):
        notes.add("number_as_text")
        return str(value)
    require_unicode(value, where)
    return value


def require_unicode(text: str, where: str) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer or file takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"`{where}` holds half of a surrogate pair at character {error.start}") from error


def require_media(turns: Sequence[Turn], media: int) -> None:
    """TagError when the questions show more than the row's `media`, the number of its images, or 1 for its video."""
    tags = [tag for turn in turns if turn.role == "human" for tag in ANY_TAG.findall(turn.text)]
    if len(tags) > media:
        there = f"names {media} image{'s' * (media > 1)} or video" if media else "names no image or video that is read"
        raise TagError(f"the questions hold {len(tags)} {tags[0]} tag{'s' * (len(tags) > 1)}, but the row {there}")


def kinds_of(turns: Sequence[Turn], media: int) -> Iterator[str]:
    """What is to be noticed about turns that show so many images or videos, as kinds; some more than once."""
    if turns[0].role == "assistant":
        yield "answer_first"
    if turns[-1].role == "human":
        yield "question_last"
    for before, after in pairwise(turns):
        if before.role == after.role:
            yield "question_replaced" if before.role == "human" else "answer_repeated"
    answers = [turn for turn in turns if turn.role == "assistant"]
    if not all(turn.text.strip() for turn in answers):
        yield "empty_answer"
    if not all(turn.trained for turn in answers):
        yield "weight_0"
    if any(ANY_TAG.search(turn.text) for turn in answers):
        yield "tag_in_answer"
    if media == 1 and any(ANY_TAG.search(exchange.question) for exchange in exchanges_of(turns)[1:]):
        yield "tag_in_later_turn"


IMAGE_TAG = "<image>"


def pair_turns(turns: Sequence[Turn]) -> list[Exchange]:
    """Questions with their answers. An answer to nothing is skipped, of two questions in a row the later counts.

    RecordError when no question has an answer.
    """
    exchanges = exchanges_of(turns)
    if not exchanges:
        raise RecordError("no question is followed by an answer")
    return exchanges
