"""The one configuration schema; values come from YAML through `components.pipeline.config_loading`.

The parameters of the Prefect flow are made from the same models: `components.pipeline.config_overrides`. Everything has a
default, and a resolved config can be dumped to YAML and loaded again without change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from components.base.settings import ModelConfig
from components.compare.settings import CompareConfig
from components.consolidate.settings import ConsolidateConfig
from components.convert.settings import ConvertConfig
from components.evaluate.settings import EvaluateConfig
from components.ingest.settings import IngestConfig
from components.pipeline.config_derived import with_data_sets_of_datamix, with_task_of_pipeline
from components.preprocess.settings import PreprocessConfig
from components.register.settings import GateConfig, RegistryConfig
from components.settings import LONGEST_NAME, LocalPath, PositiveFloat, PositiveInt, Settings, Uri
from components.tracking.settings import TrackingConfig
from components.train.settings import TrainConfig


class StorageConfig(Settings):
    """Where artifacts live."""

    root: Uri = Field("./runs", description="fsspec URI that holds every artifact: a path or s3://bucket/prefix")
    resume_root: Uri | None = Field(
        None,
        description="where unfinished steps keep what they resume, such as a training's checkpoints; on a cluster every node "
        "must see it; default: `resume` below root",
    )
    cache_dir: LocalPath = Field("./runs/cache", description="local folder for downloads and scratch files")


class RayConfig(Settings):
    """Where the heavy steps run."""

    address: Uri | None = Field(
        None, description="http://host:8265 submits Ray jobs; default: a local Ray in this process"
    )
    num_cpus: PositiveInt | None = Field(None, description="logical CPUs of the local Ray; default: as many as needed")
    working_dir: LocalPath | None = Field(
        None, description="code to upload with each job; default: installed on the cluster"
    )
    poll_seconds: Annotated[PositiveFloat, Field(le=3600)] = Field(
        1.0, description="seconds between looks at a Ray job"
    )


class PipelineConfig(Settings):
    """The whole pipeline. Validating it reads no file: what `extends` names in YAML is laid under before."""

    name: str = Field(
        "pipeline", pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=LONGEST_NAME, description="names runs and folders"
    )
    storage: StorageConfig = StorageConfig()
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()
    ingest: IngestConfig = IngestConfig()
    convert: ConvertConfig = ConvertConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    consolidate: ConsolidateConfig = ConsolidateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compare: CompareConfig = CompareConfig()
    gate: GateConfig | None = Field(
        GateConfig(), description="when the champion moves; `null`: every model becomes the champion"
    )
    registry: RegistryConfig = RegistryConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return with_task_of_pipeline(with_data_sets_of_datamix(dict(values)))

    @model_validator(mode="after")
    def _average_is_kept(self) -> PipelineConfig:
        if self.consolidate.weights == "average" and self.train.ema_decay is None:
            raise ValueError(
                "consolidate.weights is `average`, but train.ema_decay keeps none; set it, such as to 0.999"
            )
        return self
