"""The one configuration schema; values come from YAML through `components.pipeline.config_loading`.

The parameters of the Prefect flow are made from the same models: `components.pipeline.config_overrides`. Everything has a
default, and a resolved config can be dumped to YAML and loaded again without change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.initialize.partial import partial
from components.pipeline.config_derived import with_data_sets_of_datamix, with_task_of_pipeline
from components.settings import (
    LONGEST_NAME,
    Fraction,
    LocalPath,
    ModelName,
    Port,
    PositiveFloat,
    PositiveInt,
    Seed,
    TaskName,
    Uri,
)
from components.settings import holds_credentials as holds_credentials
from components.train.settings import TrainConfig
from plm_model.config import PLMConfig


class Settings(BaseModel):
    """A section of the config: frozen, and strict about unknown keys; no number may be infinite or none at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StorageConfig(Settings):
    """Where artifacts live."""

    root: Uri = Field("./runs", description="fsspec URI that holds every artifact: a path or s3://bucket/prefix")
    cache_dir: LocalPath = Field("./runs/cache", description="local folder for downloads and scratch files")


class TrackingConfig(Settings):
    """Where runs, metrics and models are recorded."""

    uri: Uri | None = Field(None, description="MLflow tracking URI; default: SQLite in state_dir")
    state_dir: LocalPath = Field("./runs", description="local folder of mlflow.db and prefect.db")
    mlflow_port: Port = Field(5000, description="of the MLflow page that `plm ui` serves, and that links lead to")
    prefect_port: Port = Field(4200, description="of its Prefect page")
    experiment: str = "plm-pipeline"
    required: bool = Field(True, description="refuse to start when tracking is unreachable")
    system_metrics: bool = True


class RayConfig(Settings):
    """Where the heavy steps run."""

    address: Uri | None = Field(
        None, description="http://host:8265 submits Ray jobs; default: a local Ray in this process"
    )
    num_cpus: PositiveInt | None = Field(None, description="logical CPUs of the local Ray; default: as many as needed")
    working_dir: LocalPath | None = Field(
        None, description="code to upload with each job; default: installed on the cluster"
    )
    poll_seconds: Annotated[PositiveFloat, Field(le=3600)] = 1.0


class DigitsSource(Settings):
    """The 1,797 handwritten digits (UCI, 8x8) that ship inside scikit-learn, written as image files."""

    kind: Literal["digits"] = "digits"
    limit: PositiveInt | None = Field(None, description="take only the first so many images")
    image_size: Annotated[PositiveInt, Field(le=4096)] = Field(
        56, description="side in pixels that the 8x8 images are written at"
    )


Check = Literal["times", "contents"]
CHECK = Field(
    "times",
    description="how a changed file is known: by size and modification `times`, or by its `contents`, all of which are read "
    "at each start",
)


class FolderSource(Settings):
    """A folder of images with a CSV or JSONL that names and labels them."""

    kind: Literal["folder"] = "folder"
    path: LocalPath
    annotations: str = Field("labels.csv", description="CSV or JSONL file below path")
    check: Check = CHECK


class S3Source(Settings):
    """A bucket prefix with images and a CSV or JSONL that names and labels them."""

    kind: Literal["s3"] = "s3"
    uri: Uri
    annotations: str = Field("labels.csv", description="CSV or JSONL key below the prefix")
    parallel: PositiveInt = 8
    part_bytes: PositiveInt = Field(8 << 20, description="objects above this size are fetched in ranges of it")


class PlmSource(Settings):
    """Data sets in PLM's format, by their names in a registry."""

    kind: Literal["plm"] = "plm"
    registry: LocalPath = Field("configs/datasets.yaml", description="YAML of name: {annotation, root_dir}")
    datasets: tuple[str, ...] = Field(min_length=1, description="names; default: those of train.datamix")
    check: Check = CHECK


class ParquetSource(Settings):
    """Parquet files with images in them, of a folder or of a data set on the Hugging Face hub."""

    kind: Literal["parquet"] = "parquet"
    path: LocalPath = Field(description="a folder, or owner/name@commit")
    files: str | None = Field(
        None,
        description="which files below it, such as data/train-*.parquet; default: all but a test or validation split",
    )
    check: Check = CHECK


Source = Annotated[DigitsSource | FolderSource | S3Source | PlmSource | ParquetSource, Field(discriminator="kind")]


class IngestConfig(Settings):
    """What is brought in."""

    source: Source = DigitsSource()


class ConvertConfig(Settings):
    """How rows become conversations."""

    image_column: str = Field(
        "image", description="column that names the images; as `image` it stands for the usual keys, such as `images`"
    )
    answer_column: str = "label"
    question_column: str | None = Field(None, description="column that holds the question; default: use `questions`")
    questions: tuple[str, ...] = Field(("What is in this image?",), min_length=1)
    answer: str = Field("{answer}", description="template of the answer; {column} names any column of the row")
    test_fraction: Fraction = 0.2
    split_seed: Seed = 0
    accept_gpt_role: bool = Field(False, description="read LLaVA's role `gpt` as `assistant`")
    repeated: Literal["keep", "drop"] = Field(
        "keep", description="rows that equal an earlier one: keep each, or drop them; both are counted"
    )
    max_bad_fraction: Fraction = 0.01


class PreprocessConfig(Settings):
    """How conversations become shards."""

    max_tokens: PositiveInt = Field(2048, description="longest example, in tokens")
    max_bad_fraction: Fraction = Field(0.01, description="share of bad rows above which the step fails; 0 = strict")
    rows_per_shard: PositiveInt = 1024
    parallelism: PositiveInt | None = None
    damaged: Literal["keep", "reject"] = Field(
        "keep",
        description="pictures that are damaged but can be shown: `keep` counts and names them, `reject` refuses them",
    )
    row_seconds: PositiveFloat = Field(20.0, description="seconds of computing that one row may take before it is bad")
    frame_jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="JPEG quality of stored video frames; null stores them exactly, at about twice the size"
    )


class ModelConfig(Settings):
    """Which model, and the weights that it starts from."""

    family: Literal["plm"] = "plm"
    init: LocalPath = Field(
        "random",
        description="`random`, a checkpoint directory (Meta's, Hugging Face's or our layout), owner/name@commit on the "
        "Hugging Face hub, or the Llama directory that `tower` is put before",
    )
    tower: LocalPath | None = Field(None, description="a Perception Encoder's .pt, for the first training stage")
    seed: Seed = 0
    tokenizer: LocalPath | None = Field(
        None, description="tokenizer.json, beside the file that names it; default: the checkpoint's own"
    )
    architecture: partial(PLMConfig) = Field(  # type: ignore[valid-type]
        {},
        description="the whole model where init is random or a tower is given; else what to change of the checkpoint's",
    )

    @model_validator(mode="after")
    def _require_whole_architecture(self) -> ModelConfig:
        if self.init == "random" and self.tower:
            raise ValueError("tower is put before the Llama directory that init names; init is `random`")
        if self.init == "random" or self.tower:
            PLMConfig.from_dict(self.architecture)
        return self


class ConsolidateConfig(Settings):
    """Which weights become the model."""

    weights: Literal["trained", "average"] = Field(
        "trained", description="`trained`, or their moving `average` where train.ema_decay keeps one"
    )


class EvaluateConfig(Settings):
    """How the model is measured."""

    task: TaskName = Field(
        "heldout",
        description="name of the task made of the held-out rows, default: the pipeline's; metrics are eval/<task>/<metric>",
    )
    metric: Literal["exact_match"] = "exact_match"
    builtin_tasks: tuple[TaskName, ...] = Field(
        (), description="further lmms-eval tasks by name; need their data at hand"
    )
    limit: PositiveInt | None = None
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 16
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`")


class CompareConfig(Settings):
    """What the before/after report shows."""

    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: Annotated[PositiveInt, Field(le=1_000_000)] = 2000
    examples: PositiveInt = 24
    seed: Seed = 0


class GateConfig(Settings):
    """When the champion alias moves."""

    metric: Literal["exact_match"] = "exact_match"
    min_gain: float = Field(0.0, ge=-1, le=1, description="over the champion; over the base model where there is none")


class RegistryConfig(Settings):
    """What the model is called in the registry."""

    name: ModelName | None = Field(None, description="registered model; default: the pipeline's name")


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
    gate: GateConfig = GateConfig()
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
