"""The settings of a training, as plain dataclasses: the loop needs no pydantic, the config reads the same classes.

`TrainConfig` holds them all, its sections are in `components.train.sections`. Wrong values are a ValueError naming the key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from components.train.sections import (
    MANY,
    STRICT,
    GuardSettings,
    LoRASettings,
    ParallelSettings,
    ParameterGroup,
    ProfileSettings,
    TrainedParameters,
    require_patterns,
)
from plm_model.parsing.bounds import Range, below, check, positive, up_to

DEFAULT_STEPS = 100


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    # What changes where, how loudly or how safely a model is trained, not which model comes out.
    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_failures", "keep_checkpoints", "checkpoint_patience_s", "max_failed_checkpoints", "log_every"),
            *("workers", "min_workers", "use_gpu", "cpus_per_worker", "loader_workers", "shard_cache_gb"),
        }
    )

    steps: int | None = None
    """Optimizer steps; default, without `epochs`: 100."""
    epochs: float | None = None
    """Instead of `steps`: so many times through the data, which becomes steps when the shards are known."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant", "inverse_sqrt", "wsd"] = "cosine"
    """How the learning rate falls after the warm-up."""
    min_lr_ratio: float = 0.01
    """Last learning rate over the peak."""
    warmup_steps: int = 20
    """Steps until the peak."""
    wsd_decay: float = 0.1
    """Share of the steps in which the schedule `wsd` falls."""
    lr_from_zero: bool = False
    """Update n has the rate of update n - 1, as in the original PLM: the first one is at 0."""
    weight_decay: float = 0.01
    """Decay of the weights."""
    decay: Literal["matrices", "all"] = "matrices"
    """What decays: matrices only, or also norms, biases and scales, as in the original PLM."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the moments."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; null for no limit."""
    freeze: tuple[str, ...] = ()
    """Regular expressions of parameter names that stay as they are."""
    groups: tuple[ParameterGroup, ...] = ()
    """Parameters with a learning rate or weight decay of their own."""
    lora: LoRASettings | None = None
    """Train low-rank adapters instead of the weights."""
    ema_decay: float | None = None
    """Also keep an exponential moving average of the weights: each update keeps this share of it."""
    packs_per_step: int = 2
    """Packs of one optimizer step over all workers (global batch)."""
    pack_tokens: int = 1024
    """Token budget of a pack."""
    pack_media: int = 64
    """Budget of a pack in items of media: what the model's encoder runs on, such as the parts that a picture is cut into."""
    datamix: str | None = None
    """Sources and their proportions of examples, as `a:1,b:3`; default: all sources at their natural size."""
    loader_workers: int = 0
    """Processes of each worker that read and decode ahead; 0 = a thread."""
    shard_cache_gb: float = 50.0
    """Disk space on each machine for shards of an object store, in GB."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """What is computed in; weights and sums are float32 or more. float64 is for numerical checks."""
    recompute: dict[str, Literal["none", "selective", "full"]] = field(default_factory=dict)
    """What each tower (`vision`, `decoder`) computes again in the backward pass instead of keeping it."""
    compile: bool = False
    """Compile each block; needs a C++ compiler."""
    feature_cache_gb: float = 0.0
    """Host memory of each worker for the features of a tower that is frozen and drops no path; 0 = none."""
    parallel: ParallelSettings = ParallelSettings()  # noqa: RUF009 - frozen
    exact_elastic: bool = False
    """The same bits whatever the number of workers, at the cost that `components.train.update.gradient_sum` names."""
    seed: int = 0
    """Of the order of the data and of all random numbers."""
    workers: int = 2
    """Ranks of the training."""
    min_workers: int | None = None
    """Go on with as few when machines are lost, and with more when they are back; default: always `workers`."""
    use_gpu: bool = False
    """Whether each rank has a GPU."""
    cpus_per_worker: float = 1.0
    """Logical CPUs that Ray keeps for a rank."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    publish: Literal["last", "best"] = "last"
    """Which checkpoint the training gives: `best` has the lowest validation loss, or training loss where none is measured."""
    checkpoint_patience_s: float = 300.0
    """How long the last checkpoint is tried again, with training done and in memory, while the disk has no room for it."""
    max_failed_checkpoints: int = 3
    """Checkpoints in a row that could not be written, after which the training stops."""
    log_every: int = 10
    """Steps between lines of metrics."""
    validate_every: int | None = None
    """Steps between two losses on the test split, `val/loss`; without it none is measured."""
    profile: ProfileSettings | None = None
    """Steps to trace; a file `profile` beside the checkpoints asks for a trace at any time."""
    max_failures: int = 3
    """Failed worker groups that are started again; -1 = without limit."""
    guards: GuardSettings = GuardSettings()  # noqa: RUF009 - frozen

    BOUNDS: ClassVar[dict[str, Range]] = {
        "steps": positive(MANY),
        "epochs": positive(10**6),
        "lr": positive(1e3),
        "min_lr_ratio": up_to(1.0),
        "warmup_steps": up_to(MANY),
        "wsd_decay": up_to(1.0),
        "weight_decay": up_to(1e3),
        "betas": below(1.0),
        "clip_norm": positive(1e9),
        "ema_decay": below(1.0),
        "packs_per_step": positive(10**6),
        "pack_tokens": positive(2**24),
        "pack_media": positive(10**6),
        "loader_workers": up_to(1024),
        "shard_cache_gb": positive(1e6),
        "feature_cache_gb": up_to(1e6),
        "seed": up_to(2**32 - 1),
        "workers": positive(2**16),
        "min_workers": positive(2**16),
        "cpus_per_worker": positive(4096),
        "checkpoint_every": positive(MANY),
        "keep_checkpoints": positive(10**6),
        "checkpoint_patience_s": up_to(1e7),
        "max_failed_checkpoints": positive(10**6),
        "log_every": positive(MANY),
        "validate_every": positive(MANY),
        "max_failures": Range(-1, MANY),
    }

    def __post_init__(self) -> None:
        check(self)
        self._count_one_way()
        require_patterns("freeze", *self.freeze)
        if self.datamix is not None:
            from components.train.data.datamix import parse_datamix

            parse_datamix(self.datamix)
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}; it must be from 1 to workers={self.workers}")
        if self.min_workers not in (None, self.workers) and self.parallel.replicas > 1:
            raise ValueError(
                "min_workers lets the group have any size, which parallel.replicas may not divide; use one"
            )
        if self.exact_elastic and self.feature_cache_gb:
            raise ValueError(
                "exact_elastic needs every feature computed alike, which feature_cache_gb does not do; set 0"
            )
        if self.exact_elastic and self.parallel.replicas > 1:
            raise ValueError("exact_elastic adds gradients in one order, which parallel.replicas does not keep; use 1")

    @property
    def trained(self) -> TrainedParameters:
        """Which parameters are trained."""
        return TrainedParameters(self.freeze, self.groups, self.lora)

    @property
    def planned_steps(self) -> int:
        """`steps`, where epochs have become steps."""
        assert self.steps is not None
        return self.steps

    def _count_one_way(self) -> None:
        """Either steps or epochs; neither is DEFAULT_STEPS."""
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps is {self.steps} and epochs is {self.epochs:g}; give one of them")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
