"""The blocks of a module that does not name them, as those of Hugging Face: found by how it is built."""

from __future__ import annotations

from torch import nn


def towers_by_structure(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The blocks of each tower by the name of its list: the outermost lists of more than one module of one class.

    Worked example: a vision-language model of `transformers` has `model.vision_tower.encoder.layers` and
    `model.language_model.layers`; a list of experts inside a layer is a part of that layer.
    """
    found: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{other}.") for other in found)
        if isinstance(module, nn.ModuleList) and not inside and len(module) > 1 and len({type(m) for m in module}) == 1:
            found[name] = list(module)
    return found
