"""Colours stand among the characters' embeddings; one layer, and the scores of the next character."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mean_colour.settings import COLOUR, Architecture
from plm_model.nn.attention import attend, plan_attention
from plm_model.nn.cost import StepCost
from plm_model.nn.decoder import DecoderLayer, RMSNorm
from plm_model.nn.losses import CHUNK_ROWS, chunked_losses
from plm_model.nn.rope import decoder_rotary
from plm_model.packs.batch import Batch
from plm_model.packs.example import NO_TARGET


class MeanColour(nn.Module):
    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.decoder = architecture.decoder
        self.characters = nn.Embedding(self.decoder.vocab_size, self.decoder.dim)
        self.colour = nn.Linear(3, self.decoder.dim)
        self.layers = nn.ModuleList(DecoderLayer(self.decoder) for _ in range(self.decoder.layers))
        self.norm = RMSNorm(self.decoder.dim, self.decoder.norm_eps)
        self.scores = nn.Linear(self.decoder.dim, self.decoder.vocab_size, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        targets = batch.targets.to(self.scores.weight.device)
        wanted = targets != NO_TARGET
        return chunked_losses(
            self.rows(batch)[wanted], targets[wanted], lambda rows: self.scores(rows).float(), CHUNK_ROWS
        )

    def rows(self, batch: Batch) -> Tensor:
        """The stream before the scores, [T, D]."""
        weight = self.colour.weight
        here = batch.to(weight.device)
        places, features = here.tokens == COLOUR, self.colour(here.media["colours"].to(weight.dtype))
        h = self.characters(here.tokens)
        h = h.masked_scatter(places[:, None], features) if places.any() else h + features.sum() * 0
        plan = plan_attention(batch.doc.cpu(), batch.group.cpu(), batch.seg.cpu(), h.device, h.dtype)
        rotary = decoder_rotary(self.decoder, here.pos)
        for layer in self.layers:
            h = layer(h, rotary, partial(attend, plan=plan))
        return self.norm(h)

    def towers(self) -> dict[str, list[nn.Module]]:
        return {"decoder": list(self.layers)}

    def encoders(self) -> dict[str, nn.Module]:
        return {"colour": self.colour}


def build(architecture: Architecture, device: torch.device | str = "meta") -> MeanColour:
    with torch.device(device):
        return MeanColour(architecture)


def cost(model: MeanColour) -> StepCost:
    return StepCost(6.0 * sum(p.numel() for p in model.layers.parameters()), 0.0, 18.0, 0.0)
