"""AutoDQ: two descriptions of a video compared by their events. A judge lists events, and says which a description entails."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluate.benchmarks.judge import Judge

RELATIONS = ("entailment", "neutral", "contradiction")
MOST_EVENTS = 10
EVENTS = """Here is a description of a video:
{description}

List the events that it tells of, at most {most}. An event is something that happens: an action or a motion, not how things
look, not a cut and not a movement of the camera. Say each in one short sentence with its subject, name things rather than
saying "it" or "they", split what can be split, and name no event twice.
Answer with JSON only: {{"events": ["...", "..."]}}"""
ENTAILED = """Here is a description of a video:
{description}

And here are events:
{events}

For each event, in this order, say how the description stands to it: "entailment" when the description says that it happens,
"contradiction" when the description says something that rules it out, "neutral" otherwise.
Answer with JSON only: {{"relations": ["entailment", "neutral", ...]}}, with one entry for each of the {count} events."""


class Unreadable(ValueError):
    """A verdict of the judge that is not what it was asked for."""


@dataclass(frozen=True)
class Comparison:
    """Shares from 0 to 1: `recall` of the reference's events, `precision` of the answer's."""

    recall: float
    precision: float


def compared(judge: Judge, answer: str, reference: str, reference_events: Sequence[str]) -> Comparison:
    """Compare an answer with a reference whose events are known. Unreadable when a verdict is, JudgeError without one."""
    answer_events = events_of(judge, answer) if answer.strip() else []
    return Comparison(
        recall=entailed(judge, answer, reference_events) if answer.strip() else 0.0,
        precision=entailed(judge, reference, answer_events) if answer_events else 0.0,
    )


def events_of(judge: Judge, description: str) -> list[str]:
    """The events of a description."""
    found = parsed(judge.answer(EVENTS.format(description=description, most=MOST_EVENTS)), "events")
    if not all(isinstance(event, str) for event in found):
        raise Unreadable(f"the judge's events are no texts: {found}")
    return found[:MOST_EVENTS]


def entailed(judge: Judge, description: str, events: Sequence[str]) -> float:
    """The share of events that a description entails; nothing is left out where there are none."""
    if not events:
        return 1.0
    listed = "\n".join(f"{number}. {event}" for number, event in enumerate(events, 1))
    said = judge.answer(ENTAILED.format(description=description, events=listed, count=len(events)))
    relations = [str(relation).strip().lower() for relation in parsed(said, "relations")]
    if len(relations) != len(events) or set(relations) - set(RELATIONS):
        raise Unreadable(f"the judge gave {relations} for {len(events)} events")
    return relations.count("entailment") / len(events)


def parsed(said: str, key: str) -> list[Any]:
    """The list under a key of the JSON object that a judge's answer holds, with whatever stands around it."""
    found = re.search(r"\{.*\}", said, re.DOTALL)
    try:
        value = json.loads(found[0])[key] if found else None
    except (ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, list):
        raise Unreadable(f"the judge's answer holds no list of {key}: {said[:200]}")
    return value
