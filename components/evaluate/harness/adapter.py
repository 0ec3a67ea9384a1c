"""Our model directories as an lmms-eval model (simple interface)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from components.evaluate.answering.ask import Ask, Said, shown_of
from components.evaluate.answering.kept import KeptAnswers
from components.evaluate.answering.pool import Answers, Progress, answers
from plm_model.answers.options import GenerationOptions

DEFAULT_NEW_TOKENS = 64  # many tasks name no limit


class FamilyAdapter(lmms):
    """Hands the requests of lmms-eval to whoever answers; answers that were given before are not computed again.

    `progress` is called with (answered, all); `digest` names the weights.
    """

    is_simple = True

    def __init__(
        self,
        digest: str = "",
        pool: Answers | None = None,
        kept: KeptAnswers | None = None,
        batch_size: int | str = 1,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        progress: Callable[[int, int], None] | None = None,
        **_ignored: Any,
    ) -> None:
        super().__init__()
        self._digest, self._pool, self._kept = digest, pool, kept
        self._batch_size = int(batch_size)
        self._max_new_tokens = int(max_new_tokens)
        self.not_asked: list[dict[str, Any]] = []
        self.counts = Progress()
        self._progress = progress or (lambda answered, total: None)

    def __str__(self) -> str:
        return f"FamilyAdapter({self._digest})"  # the default holds an address

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")  # of the harness's own tensors

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def clean(self) -> None:
        """Keep the model: the harness would delete it after the first task."""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answers, in the order of the requests.

        A request that cannot be put to the model is answered by nothing, and stands in `not_asked` with the reason.
        """
        return [answer.text for answer in self._said(requests, self._ask)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The loss of each given answer, of which the harness takes the least, and whether it is the likeliest of all."""
        said = self._said(requests, self._ask_of_given)
        return [(math.inf if answer.loss is None else answer.loss, bool(answer.greedy)) for answer in said]

    def _said(self, requests: list[Instance], ask: Callable[[Instance], Ask]) -> list[Said]:
        assert self._pool is not None and self._kept is not None
        said = answers(
            len(requests),
            lambda place: ask(requests[place]),
            self._kept,
            self._pool,
            self._batch_size,
            self._progress,
            self.counts,
        )
        for request, answer in zip(requests, said, strict=True):
            if answer.problem is not None:
                _, _, _, doc_id, task, _ = request.args
                self.not_asked.append({"task": task, "document": doc_id, "reason": answer.problem})
        return said

    def _ask(self, request: Instance) -> Ask:
        text, settings, doc_to_visual, doc_id, task, split = request.args
        shown = shown_of(doc_to_visual(self.task_dict[task][split][doc_id]))
        return Ask(text, shown, generation_options(settings, self._max_new_tokens))

    def _ask_of_given(self, request: Instance) -> Ask:
        text, given, doc_to_visual, doc_id, task, split = request.args
        given = given(self.task_dict[task][split][doc_id]) if callable(given) else str(given)
        shown = shown_of(doc_to_visual(self.task_dict[task][split][doc_id]))
        return Ask(text, shown, GenerationOptions(), given.strip())

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")


def generation_options(settings: Mapping[str, Any], max_new_tokens: int) -> GenerationOptions:
    """A task's generation settings in our terms. Greedy unless the task asks for sampling.

    The harness adds a blank line to `until` where a task names nothing else; it is honoured like any other.
    """
    until = settings.get("until") or ()
    sample = settings.get("do_sample", True) and (settings.get("temperature") or 0.0) > 0
    return GenerationOptions(
        max_new_tokens=int(settings.get("max_new_tokens") or max_new_tokens),
        temperature=float(settings["temperature"]) if sample else 0.0,
        top_p=settings.get("top_p") if sample else None,
        top_k=settings.get("top_k") if sample else None,
        stop=tuple(text for text in ((until,) if isinstance(until, str) else until) if text),
    )
