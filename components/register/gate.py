"""The aliases: which version is the champion, also when two are promoted at the same time.

On one machine they wait for each other. Against another machine a registry has no lock: there each says that it passed
before it moves the alias, and looks afterwards who else did; whoever moves it last sees both, and the better one stays.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from components.evidence.paired import Paired
from components.register.aliases import CHAMPION, MODEL_TAG, PLACE_TAG, PREVIOUS, version_by_alias
from components.register.rules import Decision, Evidence, Measured, Rule, Verdict, decide
from components.register.settings import GateConfig

GATE_TAG, REASON_TAG, RULES_TAG, TIME_TAG = "plm.gate", "plm.gate.reason", "plm.gate.rules", "plm.gate.at"
TAG_LENGTH = 5000  # MLflow's own limit
AT_ONCE_SECONDS = 60.0  # two machines that promote at the same time, and how far their clocks may differ


@dataclass(frozen=True)
class Registration:
    """What `registration.json` says. `version` is None where the registry was away; `rules` are sentences, each with its
    outcome."""

    name: str
    version: str | None
    champion: bool
    reason: str
    verdict: str = "hold"
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """What is to be promoted: a version, its tags, and what it is compared by."""

    version: str
    tags: Mapping[str, str]
    comparison: Mapping[str, Any]
    model_bytes: int | None = None
    seconds_per_answer: float | None = None


@contextlib.contextmanager
def alone(state_dir: Path, name: str) -> Iterator[None]:
    """Hold a registered model against other processes of this machine while the block runs."""
    folder = state_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks
            held.enter_context(FileLock(folder / f"registry-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:100]}"))
        yield


def promote(client: Any, name: str, gate: GateConfig | None, candidate: Candidate) -> Registration:
    """Move the champion alias to a version if the gate lets it pass; the decision is kept as tags of the version."""
    started, version = time.time(), candidate.version
    champion = version_by_alias(client, name, CHAMPION)
    if champion is not None and champion.version == version:
        return Registration(name, version, True, f"{name} version {version} is the champion", "promote")
    if champion is not None and is_moved(champion, candidate.tags):
        decision = settled("promote", f"the weights of version {champion.version}, where they lie now: stays champion")
        note(client, name, version, decision)
        client.set_registered_model_alias(name, CHAMPION, version)
        return registration_of(name, version, decision)
    decision = settled("promote", "gate is null") if gate is None else judged(gate, candidate, champion)
    note(client, name, version, decision)
    if decision.verdict == "promote":
        if champion is not None:
            client.set_registered_model_alias(name, PREVIOUS, champion.version)
        client.set_registered_model_alias(name, CHAMPION, version)
        if gate and (better := better_at_once(client, name, candidate, since=started - AT_ONCE_SECONDS)):
            decision = yield_to(client, name, candidate, better)
    return registration_of(name, version, decision)


def settled(verdict: Verdict, text: str) -> Decision:
    """A decision that no rule of the config made."""
    return Decision(verdict, (Rule("registry", "passed" if verdict == "promote" else "failed", text),))


def registration_of(name: str, version: str, decision: Decision) -> Registration:
    promoted = decision.verdict == "promote"
    what = {"promote": "becomes champion", "hold": "stays challenger", "inconclusive": "stays challenger, inconclusive"}
    rules = tuple(map(str, decision.rules))
    reason = f"{name} version {version} {what[decision.verdict]}: {decision.reason}"
    return Registration(name, version, promoted, reason, decision.verdict, rules)


def judged(gate: GateConfig, candidate: Candidate, champion: Any | None) -> Decision:
    """What the rules say of the candidate beside today's champion; beside the base model where there is none."""
    rival = candidate.comparison["rival"]
    who = "the base model" if rival["version"] is None else f"champion version {rival['version']}"
    side = "before" if rival["version"] is None else "champion"
    main = candidate.comparison["main"]
    named = sorted(candidate.comparison["tasks"].items(), key=lambda item: item[0] != main)  # the main one first
    tasks = {task: measured(values, side, who) for task, values in named}
    refused = uncomparable(rival, champion)
    return decide(gate, Evidence(who, tasks, refused, candidate.model_bytes, candidate.seconds_per_answer))


def measured(values: Mapping[str, Any], side: str, who: str) -> Measured:
    """One task of comparison.json, as the rules read it."""
    if values["not_measured"] is not None:
        return Measured(values["metric"], None, values["not_measured"])
    if (found := values["against"].get(side)) is None:
        return Measured(values["metric"], None, f"{who} was not asked")
    return Measured(values["metric"], Paired.from_json(found), unit=values["unit"])


def uncomparable(rival: Mapping[str, Any], champion: Any | None) -> str | None:
    """Why the comparison says nothing of today's champion, or None."""
    if rival["problem"] is not None:
        return f"the champion was not asked the same questions: {rival['problem']}"
    now = None if champion is None else champion.tags.get(MODEL_TAG, "")
    if now == rival["model_digest"]:
        return None
    who = "there is no champion any more" if champion is None else f"version {champion.version} is the champion now"
    return f"{who}, and the comparison is with {'the base model' if rival['version'] is None else 'another'}; run again"


def is_moved(champion: Any, tags: Mapping[str, str]) -> bool:
    """Whether the champion is a version of the same weights whose files lay at another place."""
    moved: bool = champion.tags.get(MODEL_TAG) == tags[MODEL_TAG] and champion.tags.get(PLACE_TAG) != tags[PLACE_TAG]
    return moved


def note(client: Any, name: str, version: str, decision: Decision) -> None:
    """Keep a decision as tags of its version, the one that others look for last."""
    client.set_model_version_tag(name, version, REASON_TAG, decision.reason[:TAG_LENGTH])
    client.set_model_version_tag(name, version, RULES_TAG, "\n".join(map(str, decision.rules))[:TAG_LENGTH])
    client.set_model_version_tag(name, version, TIME_TAG, repr(time.time()))
    client.set_model_version_tag(name, version, GATE_TAG, decision.verdict)


def better_at_once(client: Any, name: str, candidate: Candidate, since: float) -> Any | None:
    """The best of the versions that passed since then on the same data, if it is better than this one."""
    metric = main_metric(candidate.comparison)
    others = [
        other
        for other in client.search_model_versions(f"name = '{name}'")
        if other.version != candidate.version
        and other.tags.get(GATE_TAG) == "promote"
        and float(other.tags.get(TIME_TAG, 0.0)) >= since
        and other.tags.get("plm.data_digest") == candidate.tags["plm.data_digest"]
        and metric in other.tags
    ]
    best = max(others, key=lambda other: float(other.tags[metric]), default=None)
    if best is None or float(best.tags[metric]) <= main_value(candidate.comparison):
        return None
    return best


def main_metric(comparison: Mapping[str, Any]) -> str:
    """The tag of a version that holds what its main task measured."""
    main = comparison["main"]
    return f"metric/{main}/{comparison['tasks'][main]['metric']}"


def main_value(comparison: Mapping[str, Any]) -> float:
    return float(comparison["tasks"][comparison["main"]].get("after", "nan"))


def yield_to(client: Any, name: str, candidate: Candidate, better: Any) -> Decision:
    """Give the alias to a better version that was promoted at the same time."""
    client.set_registered_model_alias(name, CHAMPION, better.version)
    metric = main_metric(candidate.comparison)
    decision = settled(
        "hold",
        f"{metric.removeprefix('metric/')} {main_value(candidate.comparison):.4f} against {float(better.tags[metric]):.4f} of "
        f"version {better.version}, which was promoted at the same time",
    )
    note(client, name, candidate.version, decision)
    return decision
