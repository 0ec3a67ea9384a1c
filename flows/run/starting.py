"""What is checked before anything starts: said and refused alike by the whole chain, by single steps and by `--explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from components.pipeline.config import PipelineConfig
from components.pipeline.storage import store_of
from components.preflight.finding import Finding
from components.preflight.start import look, refuse
from flows.run.explain import explain


def check_start(
    config: PipelineConfig, steps: Iterable[str], refresh: frozenset[str], say: Callable[[str], None]
) -> None:
    """Say what is unusual, and raise UserError for what would fail; of steps that would be reused, nothing is asked."""
    findings = look(config, steps)
    if any(finding.step and finding.refuses for finding in findings):
        reused = _reused(config, refresh)
        findings = [finding for finding in findings if finding.step not in reused]
    for finding in findings:
        if not finding.refuses:
            say(finding.text)
    refuse(findings)


def _reused(config: PipelineConfig, refresh: frozenset[str]) -> set[str]:
    try:
        store = store_of(config)
        return {decision.step for decision in explain(config, store, refresh) if decision.reused}
    except Exception:  # of a source or a store: what was found stands
        return set()


def findings_for(config: PipelineConfig, running: Iterable[str]) -> list[Finding]:
    """The findings about steps that would run, and the gate's."""
    from components.preflight.gate import passable

    return [*look(config, running), *passable(config)]
