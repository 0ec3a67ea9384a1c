"""One pipeline run: each step a Prefect task and an MLflow child run around an artifact, linked in both directions."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.artifacts.artifact import Artifact, StepKey, digest_of
from components.artifacts.context import StepContext
from components.artifacts.files import remove
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.pipeline.config import PipelineConfig
from components.pipeline.config_loading import dump_config, flatten
from components.pipeline.last_run import last_key, remember_key
from components.pipeline.ray_jobs import check_tracking
from components.pipeline.run_step import resume_uri, shared_uri
from components.pipeline.step import Step
from components.pipeline.steps import STEPS
from components.pipeline.storage import store_of
from components.preflight.gate import passable
from components.tracking.runs import (
    SilentTracker,
    start_run,
    tracking_client,
)
from flows.run.explain import decide
from flows.run.links import FlowLinks
from flows.run.parent_run import ended, git_commit, log_text, mlflow_run_url, open_parent, system_metrics
from flows.run.progress import Progress
from flows.run.recovery import RunRecord
from flows.run.run_name import name_of_run


@dataclass
class PipelineRun:
    """A run in progress. `step` is what the flow calls; the rest is bookkeeping around it."""

    config: PipelineConfig
    store: ArtifactStore
    links: FlowLinks
    lease: RunRecord
    progress: Progress
    refresh: frozenset[str]
    tracker: Any
    experiment: str | None
    ray: contextlib.ExitStack
    started: float = field(default_factory=time.time)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)  # of the steps' tasks

    def step(self, name: str, **inputs: Artifact) -> Artifact:
        """Run a step, or reuse its artifact, as a Prefect task of its own."""
        step = STEPS[name]
        step.require_inputs(inputs)
        key = step.key(self.config, inputs)
        decision, found = decide(key, self.config, self.store, self.refresh)
        self.progress.say(name, f"reused: {decision.reason}" if found else f"runs: {decision.reason}")
        for note in decision.notes:
            self.progress.say(name, note)
        started = time.time()
        with self._child(name) as tracker:
            artifact = self._tracked(step, key, inputs, found, tracker)
        remember_key(self.config, self.store, key)
        self.steps[name] = {
            "seconds": round(time.time() - started, 2),
            "cached": found is not None,
            "uri": artifact.uri,
        }
        self.artifacts[name] = artifact
        return artifact

    def _tracked(
        self, step: Step, key: StepKey, inputs: Mapping[str, Artifact], found: Artifact | None, tracker: Any
    ) -> Artifact:
        """The step's task between what its MLflow run records before and after."""
        from flows.run.tasks import step_task

        tracker.tag("plm.step", step.name)
        tracker.tag("plm.key", key.digest)
        tracker.tag("plm.cached", str(found is not None).lower())
        tracker.log_params(flatten(key.config))
        for name, artifact in inputs.items():
            tracker.log_dataset(name, artifact.uri, artifact.digest, step.role)
        task = step_task(step.name, key.digest, reuse=found is not None)
        came_from = {name: self.results[source] for name, source in step.inputs.items() if source in self.results}
        self.results[step.name] = task(lambda: self._in_task(step, key, inputs, found, tracker), came_from)
        made = self.store.find(key)
        if made is None:
            raise UserError(f"{step.name}: its artifact is gone from {self.store.root}; run again")
        tracker.tag("plm.artifact", made.uri)
        tracker.tag("plm.digest", made.digest)
        tracker.log_metrics({name: value for name, value in made.counts.items() if isinstance(value, int | float)})
        log_text(tracker, "manifest.json", json.dumps(dict(made.manifest), indent=1, ensure_ascii=False))
        return made

    def _in_task(
        self, step: Step, key: StepKey, inputs: Mapping[str, Artifact], found: Artifact | None, tracker: Any
    ) -> list[str]:
        """The body of a step's task. Returns URI and digest; the files stay in the store."""
        from flows.run.tasks import run_log

        with self.progress.recorded_by(run_log()):
            artifact = found or self._run(step, key, inputs, tracker)
        self._link_task(step.name, tracker, artifact)
        return [artifact.uri, artifact.digest]

    def _run(self, step: Step, key: StepKey, inputs: Mapping[str, Artifact], tracker: Any) -> Artifact:
        if step.on_cluster and self.config.ray.address:
            return self._run_as_job(step, key, inputs, tracker)
        from components.pipeline.run_step import run_step

        if step.uses_ray:
            self._need_ray()
        previous_key = last_key(self.config, self.store, step.name)
        context = StepContext(
            tracker=tracker,
            progress=lambda text: self.progress.update(step.name, text),
            cache_dir=self.store.cache_dir,
            resume_uri=resume_uri(self.store, key),
            fresh=step.name in self.refresh or step.always_fresh,
            previous=self.store.find(previous_key) if previous_key else None,
            pipeline=self.config.name,
            kept_uri=self.store.resume_uri("kept"),
            tags={**self.tags(), "mlflow_run_id": tracker.run_id or ""},
        )
        return run_step(step, key, self.config, inputs, self.store, context)

    def _run_as_job(self, step: Step, key: StepKey, inputs: Mapping[str, Artifact], tracker: Any) -> Artifact:
        from components.pipeline.ray_jobs import StepJob, job_client, publish_job, run_job, step_entrypoint
        from flows.run.tasks import link_ray_job

        address = self.config.ray.address or ""
        client = job_client(address)
        config_sha = self.tags()["plm.config_sha"]
        config_uri, order_uri = publish_job(self.config, self.store, key, inputs)
        progress_uri = f"{shared_uri(self.store, key)}.progress.json"
        options = [
            "--order",
            order_uri,
            "--progress",
            progress_uri,
            *(["--mlflow-run", tracker.run_id] if tracker.run_id else []),
        ]
        options += ["--refresh"] if step.name in self.refresh else []
        job = StepJob(
            step.name,
            self.links.flow_run_id,
            step_entrypoint(step.name, config_uri, *options),
            {
                "prefect_flow_run_id": self.links.flow_run_id,
                "mlflow_run_id": tracker.run_id or "",
                "config_sha": config_sha,
                "step": step.name,
            },
        )

        announced: set[str] = set()

        def on_poll(submission_id: str) -> None:
            if submission_id not in announced:
                announced.add(submission_id)
                page = f"{address.rstrip('/')}/#/jobs/{submission_id}"
                tracker.tag("ray.submission_id", submission_id)
                tracker.tag("ray.dashboard_url", page)
                link_ray_job(step.name, page)
            self.progress.relay(step.name, progress_uri)

        submission_id = run_job(client, job, self.config.ray.working_dir, self.config.ray.poll_seconds, on_poll)
        remove(progress_uri)
        found = self.store.find(key)
        if found is None:
            raise UserError(
                f"{step.name}: Ray job {submission_id} succeeded, yet {self.store.root} holds no artifact of key "
                f"{key.digest[:20]}; does the cluster run the same code and see the same storage?"
            )
        return found

    def _need_ray(self) -> None:
        import ray

        if not ray.is_initialized():
            from components.pipeline.ray_session import ray_session

            started = time.time()
            self.progress.say("ray", "starting a local Ray")
            self.ray.enter_context(ray_session(self.config))
            self.steps.setdefault("_startup", {"seconds": 0.0})["seconds"] += time.time() - started

    @contextlib.contextmanager
    def _child(self, name: str) -> Iterator[Any]:
        tracker: Any = SilentTracker()
        if self.tracker.run_id:
            try:
                client = tracking_client(self.config.tracking)
                tracker = start_run(
                    self.config.tracking, client, self.experiment or "", name, self.tags(), self.tracker.run_id
                )
            except Exception as error:  # the store was deleted meanwhile, say: that does not stop a run
                self.progress.say(name, f"this step is not recorded: {type(error).__name__}")
        with ended(tracker):
            yield tracker

    def data(self) -> list[Artifact]:
        """The data set that runs are compared by, once it is made."""
        return [artifact for name, artifact in self.artifacts.items() if STEPS[name].gives_data]

    def tags(self) -> dict[str, str]:
        """What links records of this run, whichever tool holds them."""
        tags = {
            "prefect.flow_run_id": self.links.flow_run_id,
            "prefect.flow_run_url": self.links.flow_run_url,
            "prefect.deployment": self.links.deployment,
            "plm.config_sha": digest_of(self.config.model_dump(mode="json")),
            "plm.pipeline": self.config.name,
            "mlflow.source.git.commit": git_commit(),
            "plm.pipeline_run_id": self.tracker.run_id or "",
        }
        for data in self.data():
            tags["plm.data_digest"] = data.digest
        return {name: value for name, value in tags.items() if value}

    def _link_task(self, name: str, tracker: Any, artifact: Artifact) -> None:
        from flows.run.tasks import link, show_place

        slug = name.replace("_", "-")
        show_place(f"artifact-{slug}", artifact.uri, f"Files of step {name}, digest {artifact.digest}")
        if tracker.run_id and self.experiment:
            link(
                f"mlflow-{slug}", mlflow_run_url(self.config, self.experiment, tracker.run_id), f"MLflow run of {name}"
            )


@contextlib.contextmanager
def pipeline_run(
    config: PipelineConfig, links: FlowLinks, lease: RunRecord, refresh: frozenset[str]
) -> Iterator[PipelineRun]:
    """Check storage and tracking, open the parent run, and close everything truthfully however the block ends."""
    from flows.run.tasks import name_flow_run, run_log

    store = store_of(config)
    store.check()
    check_tracking(config)
    name = name_of_run(config, store, refresh)
    name_flow_run(links, f"finetune-{name}")
    tracker, experiment = open_parent(config, name)
    with contextlib.ExitStack() as ray, ended(tracker):
        run = PipelineRun(config, store, links, lease, Progress(record=run_log()), refresh, tracker, experiment, ray)
        lease.update(
            prefect_flow_run_id=links.flow_run_id,
            mlflow_run_id=tracker.run_id,
            experiment_id=experiment,
            ray_address=config.ray.address,
        )
        for name, value in run.tags().items():
            tracker.tag(name, value)
        for finding in passable(config):
            run.progress.say("note", finding.text)
        resolved = config.model_dump(mode="json")
        tracker.log_params(flatten(resolved))
        log_text(tracker, "config.yaml", dump_config(config))
        if tracker.run_id and experiment:
            from flows.run.tasks import link

            link("mlflow-run", mlflow_run_url(config, experiment, tracker.run_id), f"MLflow run of {config.name}")
        with system_metrics(config, tracker):
            yield run
        for data in run.data():
            tracker.log_dataset(config.name, data.uri, data.digest, "training")
            tracker.tag("plm.data_digest", data.digest)
