"""PLM: image features take the place of image tokens in a Llama decoder, and a pack of examples runs without padding.

`model(batch)` gives one cross-entropy loss per supervised position, so that the caller decides how to weigh them and sharded
training goes through `forward`. The head runs only where there is a target, a chunk of rows at a time.

Worked example: tokens [9 i i i i 5 6], targets [-100 -100 -100 -100 5 6 7], one tile of 4 features: the features stand at
positions 1-4, and the losses are 3 numbers, for positions 4, 5 and 6.

Shapes: T positions, N tiles, D decoder width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from plm_model.families.plm.cost import step_cost
from plm_model.families.plm.settings import TILES, PLMConfig
from plm_model.families.plm.vision import Projector, VisionTransformer
from plm_model.nn.attention import Attend, AttentionPlan, attend, plan_attention
from plm_model.nn.cost import StepCost
from plm_model.nn.decoder import DecoderLayer, RMSNorm
from plm_model.nn.losses import CHUNK_ROWS, chunked_losses
from plm_model.nn.rope import decoder_rotary
from plm_model.packs.batch import Batch
from plm_model.packs.example import NO_TARGET
from plm_model.packs.stored import MediaMismatch


@dataclass(frozen=True)
class ModelInputs:
    """A batch made ready for the model's device: what would cost a device synchronisation is worked out on the CPU.

    `image` int64 [placeholders] and `supervised` int64 [n_supervised] are positions in the pack; `targets` [n_supervised].
    """

    tokens: torch.Tensor
    pos: torch.Tensor
    image: torch.Tensor
    supervised: torch.Tensor
    targets: torch.Tensor
    tiles: torch.Tensor
    plan: AttentionPlan


def lay_out(batch: Batch, config: PLMConfig, device: torch.device, dtype: torch.dtype) -> ModelInputs:
    """Index a batch for a model. Nothing waits for the device when the batch comes on the CPU; MediaMismatch if it is wrong."""
    host = {name: getattr(batch, name).cpu() for name in ("tokens", "targets", "doc", "group", "seg")}
    image = (host["tokens"] == config.image_token_id).nonzero().squeeze(1)
    check_media(len(image), batch.media[TILES], config)
    supervised = (host["targets"] != NO_TARGET).nonzero().squeeze(1)
    moved = partial(torch.Tensor.to, device=device, non_blocking=True)
    return ModelInputs(
        tokens=moved(batch.tokens),
        pos=moved(batch.pos),
        image=moved(image),
        supervised=moved(supervised),
        targets=moved(host["targets"][supervised]),
        tiles=moved(batch.media[TILES]),
        plan=plan_attention(host["doc"], host["group"], host["seg"], device, dtype),
    )


def check_media(placeholders: int, tiles: torch.Tensor, config: PLMConfig) -> None:
    """MediaMismatch unless the tiles fill the placeholders exactly, or one filler tile accompanies a pack of text."""
    pixels = config.vision.patch_size * config.pooling_ratio
    per_tile = (tiles.shape[-2] // pixels) * (tiles.shape[-1] // pixels)
    filler = placeholders == 0 and len(tiles) <= 1
    if placeholders != len(tiles) * per_tile and not filler:
        raise MediaMismatch(
            f"the pack has {placeholders} image placeholders, but its {len(tiles)} tiles give {len(tiles) * per_tile} features"
        )


class PLM(nn.Module):
    """The model. Build it under `torch.device("meta")` and fill it with `plm_model.families.plm.weights`."""

    def __init__(self, config: PLMConfig) -> None:
        super().__init__()
        self.config = config
        decoder = config.decoder
        self.vision_model = VisionTransformer(config.vision)
        self.vision_projector = Projector(config.vision.width, decoder.dim, config.pooling_ratio)
        self.tok_embeddings = nn.Embedding(decoder.vocab_size, decoder.dim)
        self.layers = nn.ModuleList(DecoderLayer(decoder) for _ in range(decoder.layers))
        self.norm = RMSNorm(decoder.dim, decoder.norm_eps)
        if not decoder.tied:
            self.output = nn.Linear(decoder.dim, decoder.vocab_size, bias=False)

    def forward(self, batch: Batch, chunk: int = CHUNK_ROWS) -> torch.Tensor:
        """Cross entropy at each supervised position, in the pack's order: fp32 [n_supervised]."""
        layout = self.lay_out(batch)
        rows = self.norm(self.run(layout).index_select(0, layout.supervised))
        return chunked_losses(rows, layout.targets, self.output_scores, chunk)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Scores at the supervised positions: fp32 [n_supervised, V]."""
        layout = self.lay_out(batch)
        return self.head(self.run(layout).index_select(0, layout.supervised))

    def hidden(self, batch: Batch) -> torch.Tensor:
        """The decoder's stream after its last layer, before the final norm: [T, D]."""
        return self.run(self.lay_out(batch))

    def lay_out(self, batch: Batch) -> ModelInputs:
        """The batch indexed and moved to this model's device."""
        weight = self.tok_embeddings.weight
        return lay_out(batch, self.config, weight.device, weight.dtype)

    def run(self, layout: ModelInputs) -> torch.Tensor:
        """Fused inputs through every layer, each document by itself: [T, D]."""
        attends = [partial(attend, plan=layout.plan)] * len(self.layers)
        return self.decode(self.fuse(layout), layout.pos, attends)

    def fuse(self, layout: ModelInputs) -> torch.Tensor:
        """Embedded tokens, with the tiles' features in place of the image tokens: [T, D]."""
        h: torch.Tensor = self.tok_embeddings(layout.tokens)
        if len(layout.tiles) == 0:
            return h
        features = self.features(layout.tiles).flatten(0, 1).to(h.dtype)
        if len(layout.image) == 0:
            # The filler tile of a text pack: it changes no number, but every rank runs the tower's collectives.
            return h + features.sum() * 0
        return h.index_copy(0, layout.image, features)

    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, H, W] -> what stands in the decoder for each tile: [N, tokens_per_tile, D]."""
        rows, columns = (side // self.config.vision.patch_size for side in tiles.shape[-2:])
        features: torch.Tensor = self.vision_projector(self.vision_model(tiles), rows, columns)
        return features

    def decode(self, h: torch.Tensor, pos: torch.Tensor, attends: Sequence[Attend]) -> torch.Tensor:
        """Run the layers on inputs h [T, D] at positions pos [T]; layer i attends with attends[i]."""
        rotary = decoder_rotary(self.config.decoder, pos)
        for layer, attend_here in zip(self.layers, attends, strict=True):
            h = layer(h, rotary, attend_here)
        return h

    def head(self, h: torch.Tensor) -> torch.Tensor:
        """Scores of hidden rows [n, D]: at least fp32 [n, V]."""
        return self.output_scores(self.norm(h))

    def towers(self) -> dict[str, list[nn.Module]]:
        """The blocks of each tower in order: what training shards, recomputes and compiles one by one."""
        return {"vision": list(self.vision_model.transformer.resblocks), "decoder": list(self.layers)}

    def encoders(self) -> dict[str, nn.Module]:
        """What turns tiles into features, each by itself."""
        return {"vision": self.vision_model}

    def output_scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores of normalised rows [n, D]: at least fp32 [n, V]. The output layer is called, so that an adapter on it counts.

        Where the config ties them, the output matrix is the embedding itself.
        """
        tied = self.config.decoder.tied
        logits = F.linear(rows, self.tok_embeddings.weight) if tied else self.output(rows)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def build(config: PLMConfig, device: torch.device | str = "meta") -> PLM:
    """The model on a device; on `meta` it has shapes and takes no memory. Its numbers are not usable yet."""
    with torch.device(device):
        return PLM(config)


def cost(model: PLM) -> StepCost:
    """What a step of training this model costs, as it is: frozen where it is frozen, with its adapters."""
    return step_cost(model, model.config)
