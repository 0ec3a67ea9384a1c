"""The gate: which version is the champion, also when two are promoted at the same time.

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

from components.register.settings import GateConfig

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous_champion"
MODEL_TAG, PLACE_TAG = "plm.model_digest", "plm.model_uri"
GATE_TAG, REASON_TAG, TIME_TAG = "plm.gate", "plm.gate.reason", "plm.gate.at"
PASSED, REFUSED = "passed", "refused"
ROUNDING = 1e-9
AT_ONCE_SECONDS = 60.0  # two machines that promote at the same time, and how far their clocks may differ


@dataclass(frozen=True)
class GateDecision:
    """Whether the champion alias moves, and why, in one sentence."""

    champion: bool
    reason: str


@dataclass(frozen=True)
class Registration:
    """What `registration.json` says. `version` is None where the registry was away."""

    name: str
    version: str | None
    champion: bool
    reason: str


@contextlib.contextmanager
def alone(state_dir: Path, name: str) -> Iterator[None]:
    """Hold a registered model against other processes of this machine while the block runs."""
    folder = state_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks
            held.enter_context(FileLock(folder / f"registry-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:100]}"))
        yield


def promote(
    client: Any, name: str, version: str, gate: GateConfig, comparison: Mapping[str, Any], tags: Mapping[str, str]
) -> Registration:
    """Move the champion alias to a version if the gate lets it pass; the decision is kept as tags of the version."""
    started = time.time()
    champion = version_by_alias(client, name, CHAMPION)
    if champion is not None and champion.version == version:
        return Registration(name, version, True, f"{name} version {version} is the champion")
    if champion is not None and is_moved(champion, tags):
        reason = f"stays champion: the weights of version {champion.version}, where they lie now"
        note(client, name, version, GateDecision(True, reason))
        client.set_registered_model_alias(name, CHAMPION, version)
        return Registration(name, version, True, f"{name} version {version}: {reason}")
    decision = decide(gate, comparison, champion, tags)
    note(client, name, version, decision)
    if decision.champion:
        if champion is not None:
            client.set_registered_model_alias(name, PREVIOUS, champion.version)
        client.set_registered_model_alias(name, CHAMPION, version)
        if better := better_at_once(client, name, version, gate, comparison, tags, since=started - AT_ONCE_SECONDS):
            decision = yield_to(client, name, version, better, gate, comparison)
    return Registration(name, version, decision.champion, f"{name} version {version}: {decision.reason}")


def is_moved(champion: Any, tags: Mapping[str, str]) -> bool:
    """Whether the champion is a version of the same weights whose files lay at another place."""
    moved: bool = champion.tags.get(MODEL_TAG) == tags[MODEL_TAG] and champion.tags.get(PLACE_TAG) != tags[PLACE_TAG]
    return moved


def note(client: Any, name: str, version: str, decision: GateDecision) -> None:
    """Keep a decision as tags of its version, the one that others look for last."""
    client.set_model_version_tag(name, version, REASON_TAG, decision.reason)
    client.set_model_version_tag(name, version, TIME_TAG, repr(time.time()))
    client.set_model_version_tag(name, version, GATE_TAG, PASSED if decision.champion else REFUSED)


def better_at_once(
    client: Any,
    name: str,
    version: str,
    gate: GateConfig,
    comparison: Mapping[str, Any],
    tags: Mapping[str, str],
    since: float,
) -> Any | None:
    """The best of the versions that passed since then on the same data, if it is better than this one."""
    others = [
        other
        for other in client.search_model_versions(f"name = '{name}'")
        if other.version != version
        and other.tags.get(GATE_TAG) == PASSED
        and float(other.tags.get(TIME_TAG, 0.0)) >= since
        and other.tags.get("plm.data_digest") == tags["plm.data_digest"]
        and f"metric/{gate.metric}" in other.tags
    ]
    best = max(others, key=lambda other: measured(other, gate), default=None)
    return best if best is not None and measured(best, gate) > comparison["after"] + ROUNDING else None


def measured(version: Any, gate: GateConfig) -> float:
    """What the gate's metric of a version is."""
    return float(version.tags[f"metric/{gate.metric}"])


def yield_to(
    client: Any, name: str, version: str, better: Any, gate: GateConfig, comparison: Mapping[str, Any]
) -> GateDecision:
    """Give the alias to a better version that was promoted at the same time."""
    client.set_registered_model_alias(name, CHAMPION, better.version)
    decision = GateDecision(
        False,
        f"stays challenger: {gate.metric} {comparison['after']:.4f} against {measured(better, gate):.4f} of version "
        f"{better.version}, which was promoted at the same time",
    )
    note(client, name, version, decision)
    return decision


def decide(
    gate: GateConfig, comparison: Mapping[str, Any], champion: Any | None, tags: Mapping[str, str]
) -> GateDecision:
    """The gate: gain over the champion's metric, or over the untrained base where there is no champion, of at least `min_gain`.

    Worked example: min_gain 0.02, champion 0.90, candidate 0.93: gain +0.030, the champion moves; candidate 0.91: it stays.
    """
    after = comparison["after"]
    known = champion.tags.get(f"metric/{gate.metric}") if champion is not None else None
    rival = "the base model" if champion is None or known is None else f"champion version {champion.version}"
    if champion is not None and known is None:
        rival += f" (champion version {champion.version} has no metric)"
    elif champion is not None and champion.tags.get("plm.data_digest") != tags["plm.data_digest"]:
        rival += ", which was measured on other data"
    yardstick = comparison["before"] if known is None else float(known)
    gain = after - yardstick
    passed = gain >= gate.min_gain - ROUNDING
    verdict = "becomes champion" if passed else "stays challenger"
    return GateDecision(
        passed,
        f"{verdict}: {gate.metric} {after:.4f} against {yardstick:.4f} of {rival}, "
        f"gain {gain:+.4f}, gate.min_gain {gate.min_gain:g}",
    )


def version_by_alias(client: Any, name: str, alias: str) -> Any | None:
    """The version that an alias points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
