"""Where each tensor of a trained model comes from: the checkpoint, the base model where it was frozen, or both merged.

A checkpoint holds what was trained. The rest is the base model's, bit by bit and in its dtype; a layer with a low-rank adapter
becomes the weight that does what both did, in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.model_files.writer import pieces, raw_bytes
from plm_model.family import part

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from components.train.checkpoints.streams import StoredTensors
    from components.train.sections import TrainedParameters
    from plm_model.model_directory.description import Described
    from plm_model.model_directory.opened import StoredTensor


class TrainedWeights:
    """The tensors of a model, by name and in its order. UserError when the checkpoint is not of this model and settings.

    `base` gives the directory of the base model; it is asked for only where something was frozen.
    """

    def __init__(
        self, model: Described, settings: TrainedParameters, trained: StoredTensors, base: Callable[[], Path]
    ) -> None:
        from plm_model.model_directory.safetensors_reader import stored_tensors

        self.trained, self.lora = trained, settings.lora
        self._shapes = trained_shapes(model, settings)
        require_same_tensors(self._shapes, trained)
        self.names = list(built(model).state_dict())
        all_trained = self._shapes.keys() >= set(self.names)
        self._base: Mapping[str, StoredTensor] = {} if all_trained else stored_tensors(base())

    def is_merged(self, name: str) -> bool:
        """Whether the tensor is a frozen one of the base model and an adapter."""
        return adapter(name, "a") in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name] if name in self._shapes else self._base[name].shape

    def dtype(self, name: str) -> torch.dtype:
        import torch

        if name in self._shapes:
            return self.trained.dtype(name)
        return torch.float32 if self.is_merged(name) else self._base[name].dtype

    def size(self, name: str) -> int:
        """Bytes of a tensor."""
        import torch

        return torch.Size(self.shape(name)).numel() * self.dtype(name).itemsize

    def stream(self, name: str) -> Iterator[memoryview]:
        """The numbers of a tensor in row-major order. What was trained needs no more memory than a piece."""
        if name in self._shapes and not self.is_merged(name):
            return self.trained.stream(name)
        return pieces(raw_bytes(self.load([name])[name]))

    def load(self, names: list[str]) -> dict[str, Tensor]:
        """Whole tensors."""
        from components.train.model.lora import merged

        parts = [part for name in names for part in (name, adapter(name, "a"), adapter(name, "b"))]
        loaded = self.trained.load([part for part in parts if part in self._shapes])
        found: dict[str, Any] = {}
        for name in names:
            weight = loaded[name] if name in loaded else self._base[name].read()
            if self.lora and self.is_merged(name):
                weight = merged(weight, loaded[adapter(name, "a")], loaded[adapter(name, "b")], self.lora)
            found[name] = weight
        return found


def adapter(name: str, part: str) -> str:
    """The name of a part of the adapter on the layer whose weight has this name."""
    return f"{name.removesuffix('.weight')}.lora_{part}" if name.endswith(".weight") else ""


def built(model: Described) -> nn.Module:
    """The model on `meta`: names and shapes, no numbers."""
    return part(model.family, "model").build(model.architecture, "meta")


def trained_shapes(model: Described, settings: TrainedParameters) -> dict[str, tuple[int, ...]]:
    """What a checkpoint of this training holds of the model: the parameters that are not frozen, and the adapters."""
    from components.train.model.lora import add_adapters
    from components.train.update.param_groups import freeze

    module = built(model)
    if settings.lora:
        add_adapters(module, settings.lora)
    freeze(module, settings)
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in frozen}


def require_same_tensors(wanted: Mapping[str, tuple[int, ...]], tensors: StoredTensors) -> None:
    """Raises UserError naming a tensor that is missing, extra or of another shape."""
    found = tensors.shapes()
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise UserError(f"{tensors.folder}: tensor {name} of the base model is missing in the checkpoint")
        if name not in wanted:
            raise UserError(f"{tensors.folder}: the checkpoint holds the tensor {name}, which the base model has not")
        if wanted[name] != found[name]:
            raise UserError(
                f"{tensors.folder}: tensor {name} has shape {found[name]}, the base model's is {wanted[name]}"
            )
