"""A conversation in PLM's chat template, as pieces: token ids, and whether the model is trained to say them.

    plm_sft  BOS header(system) SYSTEM eot header(user) [image] question eot | header(assistant) answer eot | ... EOS
    warmup   [image] | caption "\\n"
    header(role) = <|start_header_id|> role <|end_header_id|> "\\n\\n"

Role, blank line and text are encoded one by one, so that a prompt is always a prefix of the training example, whatever
the answer begins with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from plm_model.families.plm.settings import ProcessorConfig
from plm_model.families.plm.tokenizer import Tokenizer
from plm_model.records.record import Record, Turn
from plm_model.records.turns import IMAGE_TAG, RecordError, pair_turns

MEDIA_TAG = re.compile(r"<(?:image|video)>\n|\n<(?:image|video)>|<(?:image|video)>")


@dataclass(frozen=True)
class Piece:
    """A run of token ids; truncation keeps it or drops it as a whole."""

    tokens: list[int]
    supervised: bool


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one model: which tokens stand around the texts, and where image placeholders go."""

    tokenizer: Tokenizer
    processor: ProcessorConfig
    tokens_per_tile: int

    def pieces(self, record: Record, tile_counts: Sequence[int]) -> list[Piece]:
        """Question and answer in turn, the answers that are trained supervised; RecordError when no question is answered."""
        exchanges = pair_turns(record.turns)
        questions = self.questions([exchange.question for exchange in exchanges], tile_counts)
        pieces = []
        for number, (question, exchange) in enumerate(zip(questions, exchanges, strict=True)):
            pieces.append(Piece(self.user(question, first=number == 0), supervised=False))
            answer = self.assistant(exchange.answer, last=number == len(exchanges) - 1)
            pieces.append(Piece(answer, supervised=exchange.trained))
        return pieces

    def prompt(self, record: Record, tile_counts: Sequence[int]) -> list[int]:
        """Tokens up to where the model speaks: everything before the answer to the last question."""
        asked = list(record.turns)
        while asked and asked[-1].role == "assistant":
            asked.pop()
        exchanges = pair_turns([*asked, Turn("assistant", "")])
        questions = self.questions([exchange.question for exchange in exchanges], tile_counts)
        tokens: list[int] = []
        for number, (question, exchange) in enumerate(zip(questions, exchanges, strict=True)):
            tokens += self.user(question, first=number == 0)
            tokens += self.assistant(exchange.answer, last=False) if number < len(exchanges) - 1 else []
        return tokens if self.processor.conversation_format == "warmup" else tokens + self.header("assistant")

    def questions(self, texts: list[str], tile_counts: Sequence[int]) -> list[list[int]]:
        """Ids of each question with the image placeholders in it.

        One image comes before the first text, wherever its tag stood. Several replace one literal `<image>` each.
        """
        images = [[self.tokenizer.image_id] * (tiles * self.tokens_per_tile) for tiles in tile_counts]
        if self.processor.conversation_format == "warmup":
            return [concatenated(images), *([] for _ in texts[1:])]
        if len(images) > 1:
            return self.questions_with_tags(texts, images)
        first = MEDIA_TAG.sub("", texts[0]) if images else texts[0]
        encoded = [self.tokenizer.encode(text) for text in (first, *texts[1:])]
        return [concatenated(images) + encoded[0], *encoded[1:]]

    def questions_with_tags(self, texts: list[str], images: list[list[int]]) -> list[list[int]]:
        tags = sum(text.count(IMAGE_TAG) for text in texts)
        if tags != len(images):
            raise RecordError(f"the questions hold {tags} {IMAGE_TAG} tags, but the record has {len(images)} images")
        remaining = iter(images)
        questions = []
        for text in texts:
            before, *after = text.split(IMAGE_TAG)
            tokens = self.tokenizer.encode(before)
            for part in after:
                tokens += next(remaining) + self.tokenizer.encode(part)
            questions.append(tokens)
        return questions

    def user(self, question: list[int], first: bool) -> list[int]:
        """A question with its header; the first one follows the beginning of text and the system prompt."""
        if self.processor.conversation_format == "warmup":
            return question
        said = self.header("user") + question + [self.tokenizer.eot_id]
        if not first:
            return said
        system = self.header("system") + self.tokenizer.encode(self.processor.system_prompt) + [self.tokenizer.eot_id]
        return [self.tokenizer.bos_id, *system, *said]

    def assistant(self, answer: str, last: bool) -> list[int]:
        """An answer with its header and the tokens that end it."""
        if self.processor.conversation_format == "warmup":
            return self.tokenizer.encode(answer + "\n")
        end = [self.tokenizer.eot_id, self.tokenizer.eos_text_id] if last else [self.tokenizer.eot_id]
        return self.header("assistant") + self.tokenizer.encode(answer) + end

    def header(self, role: str) -> list[int]:
        name, blank = self.tokenizer.encode(role), self.tokenizer.encode("\n\n")
        return [self.tokenizer.start_header_id, *name, self.tokenizer.end_header_id, *blank]


def concatenated(runs: Sequence[list[int]]) -> list[int]:
    return [token for run in runs for token in run]
