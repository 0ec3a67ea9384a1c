"""The settings of a training, as plain dataclasses: the loop needs no pydantic, the config reads the same classes.

A section of settings stands beside the code that it configures; `TrainConfig` holds them all. Wrong values are a
ValueError naming the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

DEFAULT_STEPS = 100
STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


def require_positive(settings: Any, *names: str) -> None:
    """ValueError naming the first key that is not above zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be positive")


def require_at_least(settings: Any, least: float, *names: str) -> None:
    """ValueError naming the first key below `least`."""
    for name in names:
        if not getattr(settings, name) >= least:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be at least {least}")


def require_within(settings: Any, name: str, least: float, most: float) -> None:
    """ValueError naming a key out of its range."""
    if not least <= getattr(settings, name) <= most:
        raise ValueError(f"{name} is {getattr(settings, name)}; it must be from {least} to {most}")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated otherwise than the rest. Of several groups, the first that matches a name counts."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    pattern: str
    """Regular expression, matched anywhere in a parameter's name."""
    lr_scale: float = 1.0
    """Factor on the learning rate."""
    weight_decay: float | None = None
    """Instead of the training's weight decay, for all parameters of the group."""
    frozen: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, 0.0, "lr_scale")
        if self.weight_decay is not None:
            require_at_least(self, 0.0, "weight_decay")


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters on linear layers: y = W x + (alpha / rank) B A x, with W frozen (Hu et al., arXiv:2106.09685)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    pattern: str
    """Regular expression of the names of the linear layers that get an adapter."""
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    train: tuple[str, ...] = ()
    """Regular expressions of parameters that are trained in full; all others of the base model are frozen."""

    def __post_init__(self) -> None:
        require_positive(self, "rank", "alpha")
        require_within(self, "dropout", 0.0, 1.0)


@dataclass(frozen=True)
class ParallelSettings:
    """How the model is spread over the workers."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    replicas: int = 1
    """Copies of the sharded model (HSDP); the number of workers must be a multiple of it."""
    reshard_after_forward: bool = True
    """Free a block's gathered weights until its backward pass; False gathers once and needs the memory of all."""
    reduce_last_only: bool = True
    """Add gradients up on each worker until the last micro-step; False needs less memory and more communication."""
    cpu_offload: bool = False
    """Keep shards, gradients and the optimizer's state in the host's memory."""

    def __post_init__(self) -> None:
        require_positive(self, "replicas")


@dataclass(frozen=True)
class ProfileSettings:
    """Which steps are traced, on the first worker."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    first: int = 10
    steps: int = 3

    def __post_init__(self) -> None:
        require_positive(self, "first", "steps")


@dataclass(frozen=True)
class GuardSettings:
    """What follows a step that is not sound, or none at all."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    on_nonfinite: Literal["stop", "skip", "roll_back"] = "stop"
    """After a loss or gradient that is not a finite number. Weights are unharmed in each case."""
    on_spike: Literal["ignore", "skip", "roll_back", "stop"] = "ignore"
    spike_factor: float = 3.0
    """A loss above so many times the median of those before is a spike."""
    spike_window: int = 32
    """Steps that the median is of; judged from half a window on."""
    most: int = 10
    """Unsound steps of a run that are put up with."""
    hang_seconds: float = 40.0
    """Seconds without progress after which the rank behind is named; silent ranks end the attempt. 0 = never."""

    def __post_init__(self) -> None:
        require_positive(self, "spike_factor", "spike_window")
        require_at_least(self, 0, "most", "hang_seconds")


# What changes where, how loudly or how safely a model is trained, not which model comes out.
WITHOUT_EFFECT = {
    "max_failures",
    "keep_checkpoints",
    "checkpoint_patience_s",
    "max_failed_checkpoints",
    "log_every",
    "workers",
    "min_workers",
    "use_gpu",
    "cpus_per_worker",
    "loader_workers",
    "shard_cache_gb",
    "guards.hang_seconds",
    "guards.most",
}


# What may change in the middle of a run: when it is saved and looked at, and which checkpoint is taken.
FREE_TO_CHANGE = {"checkpoint_every", "result", "validate_every", "profile"}


def of_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the weights of every step, as `section.key` -> value: what goes on has the same."""
    return {name: value for name, value in with_effect(settings).items() if name.split(".")[0] not in FREE_TO_CHANGE}


def of_result(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a training gives, as `section.key` -> value.

    The last checkpoint is the same whenever others were made and validated; which one is best depends on both.
    """
    chosen = ("result", "checkpoint_every", "validate_every") if settings["result"] == "best" else ("result",)
    return of_weights(settings) | {name: settings[name] for name in chosen}


def with_effect(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that determine the model, as `section.key` -> value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= with_effect(value, f"{key}.")
        elif key not in WITHOUT_EFFECT:
            found[key] = value
    return found


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    steps: int | None = None
    """Optimizer steps; default, without `epochs`: 100."""
    epochs: float | None = None
    """Instead of `steps`: so many times through the data, which becomes steps when the shards are known."""
    lr: float = 1e-3
    schedule: Literal["cosine", "linear", "constant", "inverse_sqrt", "wsd"] = "cosine"
    """How the learning rate falls after the warm-up."""
    min_lr_ratio: float = 0.01
    warmup_steps: int = 20
    wsd_decay: float = 0.1
    """Share of the steps in which the schedule `wsd` falls."""
    lr_from_zero: bool = False
    """Update n has the rate of update n - 1, as in the original PLM: the first one is at 0."""
    weight_decay: float = 0.01
    decay: Literal["matrices", "all"] = "matrices"
    """What decays: matrices only, or also norms, biases and scales, as in the original PLM."""
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = 1.0
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
    pack_tiles: int = 64
    """Tile budget of a pack."""
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
    parallel: ParallelSettings = ParallelSettings()
    exact_elastic: bool = False
    """The same bits whatever the number of workers, at the cost that `components.train.reduction` names."""
    seed: int = 0
    workers: int = 2
    min_workers: int | None = None
    """Go on with as few when machines are lost, and with more when they are back; default: always `workers`."""
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    result: Literal["last", "best"] = "last"
    """Which checkpoint the training gives: `best` has the lowest validation loss, or training loss where none is measured."""
    checkpoint_patience_s: float = 300.0
    """How long the last checkpoint is tried again, with training done and in memory, while the disk has no room for it."""
    max_failed_checkpoints: int = 3
    """Checkpoints in a row that could not be written, after which the training stops."""
    log_every: int = 10
    validate_every: int | None = None
    """Steps between two losses on the test split, `val/loss`; without it none is measured."""
    profile: ProfileSettings | None = None
    """Steps to trace; a file `profile` beside the checkpoints asks for a trace at any time."""
    max_failures: int = 3
    """Failed worker groups that are started again; -1 = without limit."""
    guards: GuardSettings = GuardSettings()

    def __post_init__(self) -> None:
        self._count_one_way()
        require_positive(
            self,
            "steps" if self.epochs is None else "epochs",
            "lr",
            "packs_per_step",
            "pack_tokens",
            "pack_tiles",
            "workers",
            "cpus_per_worker",
        )
        require_positive(self, "checkpoint_every", "keep_checkpoints", "log_every", "max_failed_checkpoints")
        require_within(self, "min_lr_ratio", 0.0, 1.0)
        require_at_least(self, 0, "warmup_steps", "loader_workers")
        require_positive(self, "shard_cache_gb")
        if self.datamix is not None:
            from components.train.datamix import parse_datamix

            parse_datamix(self.datamix)
        require_within(self, "wsd_decay", 0.0, 1.0)
        require_at_least(self, -1, "max_failures")
        if self.validate_every is not None:
            require_positive(self, "validate_every")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise ValueError(f"min_workers is {self.min_workers}; it must be from 1 to workers={self.workers}")
        if self.min_workers not in (None, self.workers) and self.parallel.replicas > 1:
            raise ValueError(
                "min_workers lets the group have any size, which parallel.replicas may not divide; use one"
            )
        if self.ema_decay is not None:
            require_within(self, "ema_decay", 0.0, 1.0)
        require_at_least(self, 0.0, "feature_cache_gb")
        if self.exact_elastic and self.feature_cache_gb:
            raise ValueError(
                "exact_elastic needs every feature computed alike, which feature_cache_gb does not do; set 0"
            )
        if self.exact_elastic and self.parallel.replicas > 1:
            raise ValueError("exact_elastic adds gradients in one order, which parallel.replicas does not keep; use 1")
        if self.clip_norm is not None:
            require_positive(self, "clip_norm")

    def _count_one_way(self) -> None:
        """Either steps or epochs; neither is DEFAULT_STEPS."""
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps is {self.steps} and epochs is {self.epochs:g}; give one of them")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
        require_positive(self, "steps" if self.epochs is None else "epochs")
