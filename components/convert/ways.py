"""What of a row becomes its question and its answer. Settings that are set decide; where none is, the row's own conversation.

convert.answer or convert.answer_column is set    that template, unless the row is a dialogue without its columns
the row has `conversations` or `messages`         these
it has the answer column (`label`)                the template
it has `text`, or `question` and `answer`         these; with a question of the config's where one is set
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from components.convert.settings import ConvertConfig
from components.formats import columns, conversations, texts
from components.formats.format import Format, Way
from components.formats.templates import Template, parse_template

TEXTS = (*conversations.KEYS, "text", "question", "answer")
DEFAULT = ConvertConfig()


@dataclass
class Ways:
    """The ways of the rows of one file, by the keys that they have, and how many rows went each."""

    config: ConvertConfig
    image_column: str
    registered: bool  # a data set in PLM's format, of which each row is a conversation
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.template = parse_template(self.config.answer, {"answer": self.config.answer_column}, "convert.answer")
        self._known: dict[frozenset[str], Way] = {}

    def of(self, keys: Collection[str]) -> Way:
        """The way of a row that has a value under these keys. UserError when the config's template is malformed."""
        known = frozenset(keys)
        if known not in self._known:
            self._known[known] = self._decide(known)
        return self._known[known]

    def line(self, file: str) -> str:
        """What was decided about a file: `labels.csv: 3 rows with the answer of convert.answer='{title}' and ...`."""
        return f"{file}: " + "; ".join(f"{count} rows with {said}" for said, count in sorted(self.counts.items()))

    def _decide(self, keys: frozenset[str]) -> Way:
        config = self.config
        dialogue = next((key for key in conversations.KEYS if key in keys), None)
        answer_is_set = (config.answer, config.answer_column) != (DEFAULT.answer, DEFAULT.answer_column)
        own = texts.own_answer(keys)
        if self.registered:
            return self._own(f"their `{dialogue}`", conversations) if dialogue else self._own("their own texts", texts)
        if answer_is_set and (dialogue is None or keys.issuperset(self.template.columns)):
            return self._filled(self.template, f"convert.answer={config.answer!r}", keys)
        if dialogue is not None:
            return self._own(f"their `{dialogue}`", conversations)
        if own is None or config.answer_column in keys:
            return self._filled(self.template, f"column {config.answer_column!r}", keys)
        asked = config.question_column in keys or (own == "text" and config.questions != DEFAULT.questions)
        if asked:
            return self._filled(Template((("", own),)), f"column {own!r}", keys)
        return self._own(
            "their `text`, without a question" if own == "text" else "their `question` and `answer`", texts
        )

    def _own(self, said: str, format: Format) -> Way:
        return Way(said, format, self.image_column)

    def _filled(self, answer: Template, named: str, keys: frozenset[str]) -> Way:
        column = self.config.question_column
        question = f"column {column!r}" if column else "convert.questions"
        unread = [key for key in TEXTS if key in keys and key != column and key not in answer.columns]
        note = f" ({', '.join(f'`{key}`' for key in unread)} not read)" if unread else ""
        said = f"the answer of {named} and the question of {question}{note}"
        return Way(said, columns, self.image_column, answer, column, self.config.questions)
