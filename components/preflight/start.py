"""All quick checks of a start, in one list; `look` gives what they find for the steps that the start may run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.preflight import benchmarks, data, life, machine, model
from components.preflight.finding import Finding

CHECKS: tuple[Callable[[PipelineConfig], Iterable[Finding]], ...] = (
    machine.folders,
    machine.plain_addresses,
    machine.room_for_sockets,
    machine.named_ray,
    machine.enough_gpus,
    data.source,
    data.columns,
    model.weights,
    model.random_size,
    model.room,
    benchmarks.names,
    life.inherited,
)


def look(config: PipelineConfig, steps: Iterable[str]) -> list[Finding]:
    """What is known to be wrong or unusual about a start that may run `steps`; each sentence once, refusals first."""
    wanted = set(steps)
    found: dict[str, Finding] = {}
    for check in CHECKS:
        for finding in check(config):
            if finding.step is None or finding.step in wanted:
                found.setdefault(finding.text, finding)
    return sorted(found.values(), key=lambda finding: not finding.refuses)


def refuse(findings: Iterable[Finding]) -> None:
    """Raise UserError with a line for each finding that a start must not be made with."""
    if lines := [finding.text for finding in findings if finding.refuses]:
        raise UserError("\n".join(lines))
