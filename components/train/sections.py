"""Sections of the settings of a training: each stands for one part of the engine, and is checked where it is written down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from plm_model.parsing.bounds import Range, below, check, positive, up_to

STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


MANY = 10**9  # steps, and whatever is counted in them


def require_patterns(name: str, *patterns: str) -> None:
    """ValueError naming a regular expression that is none."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{name} is {pattern!r}; it is not a regular expression: {error}") from None


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

    BOUNDS: ClassVar[dict[str, Range]] = {"lr_scale": up_to(1e6), "weight_decay": up_to(1e3)}

    def __post_init__(self) -> None:
        check(self)
        require_patterns("pattern", self.pattern)


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters on linear layers: y = W x + (alpha / rank) B A x, with W frozen (Hu et al., arXiv:2106.09685)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    pattern: str
    """Regular expression of the names of the linear layers that get an adapter."""
    rank: int = 16
    """Width of an adapter."""
    alpha: float = 32.0
    """An adapter counts alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is dropped in training."""
    train: tuple[str, ...] = ()
    """Regular expressions of parameters that are trained in full; all others of the base model are frozen."""

    BOUNDS: ClassVar[dict[str, Range]] = {"rank": positive(2**16), "alpha": positive(1e6), "dropout": below(1.0)}

    def __post_init__(self) -> None:
        check(self)
        require_patterns("pattern", self.pattern)
        require_patterns("train", *self.train)


@dataclass(frozen=True)
class TrainedParameters:
    """Which parameters of a model are trained: those that are not frozen, and adapters."""

    freeze: tuple[str, ...] = ()
    groups: tuple[ParameterGroup, ...] = ()
    lora: LoRASettings | None = None


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

    BOUNDS: ClassVar[dict[str, Range]] = {"replicas": positive(2**16)}

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ProfileSettings:
    """Which steps are traced, on the first worker."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    first: int = 10
    """The first step that is traced."""
    steps: int = 3
    """How many steps are traced."""

    BOUNDS: ClassVar[dict[str, Range]] = {"first": positive(MANY), "steps": positive(10_000)}

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GuardSettings:
    """What follows a step that is not sound, or none at all."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"hang_seconds", "max_unsound_steps"})

    on_nonfinite: Literal["stop", "skip", "roll_back"] = "stop"
    """After a loss or gradient that is not a finite number. Weights are unharmed in each case."""
    on_spike: Literal["ignore", "skip", "roll_back", "stop"] = "ignore"
    """After a loss far above those before."""
    spike_factor: float = 3.0
    """A loss above so many times the median of those before is a spike."""
    spike_window: int = 32
    """Steps that the median is of; judged from half a window on."""
    max_unsound_steps: int = 10
    """Unsound steps of a run that are tolerated."""
    hang_seconds: float = 40.0
    """Seconds without progress after which the rank behind is named; silent ranks end the attempt. 0 = never."""

    BOUNDS: ClassVar[dict[str, Range]] = {
        "spike_factor": positive(1e6),
        "spike_window": positive(10**6),
        "max_unsound_steps": up_to(MANY),
        "hang_seconds": up_to(1e7),
    }

    def __post_init__(self) -> None:
        check(self)
