"""However a step is spread over packs, micro-steps and ranks, its gradient is the same.

Four processes are started once: together they are four ranks, then two, then one, then two again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from components.shards.cache import ShardFiles
from components.shards.reader import INDEX, ShardReader, read_index
from components.train.checkpoints import checkpoint
from components.train.data.loader import MicroBatch, StepWork, step_work
from components.train.data.plan import Cost, PackPlan
from components.train.data.selection import plan_spec
from components.train.folder import TrainingFolder
from components.train.loop import Hooks, accumulate, train
from components.train.model.assembly import assemble
from components.train.model.parallel import Group, MeshShape
from components.train.sections import LoRASettings, ParallelSettings
from components.train.settings import TrainConfig
from components.train.update.gradient_sum import reduction
from components.train.worker import TrainJob, prepare
from plm_model.families.plm.collator import Collator, collate, open_collator
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig
from plm_model.families.plm.weights import initialise
from plm_model.packs.example import Example
from tests.components.training_set import IMAGE, artifact, tiny_config, write_base, write_shards

CPU = torch.device("cpu")
ALONE = Group(CPU)
PLAIN = TrainConfig(warmup_steps=2, lr=3e-3)
LORA = LoRASettings(r"\.(wq|w2|c_fc)$", rank=3, train=("^vision_projector",))
Gradients = dict[str, Tensor]


def odd_config(drop_path: float = 0.0) -> PLMConfig:
    """Sizes that two or four ranks do not divide."""
    config = tiny_config(drop_path)
    return replace(config, decoder=replace(config.decoder, vocab_size=43, hidden_dim=45))


# The data of a step: examples of 1 to 9 targets, with and without an image


def example(number: int, image: bool) -> tuple[Example, np.ndarray]:
    generator = np.random.default_rng(number)
    text = generator.integers(5, 43, number + 1).astype(np.int32)
    sequence = np.array([1, *([IMAGE] if image else []), 4, *text], np.int32)
    targets = np.full(len(sequence) - 1, -100, np.int32)
    targets[-len(text) :] = text
    zero = np.zeros_like(targets)
    tiles = generator.integers(0, 256, (int(image), 3, 28, 28)).astype(np.uint8)
    return Example(sequence[:-1], targets, np.arange(len(targets), dtype=np.int32), zero, zero), tiles


EXAMPLES = [example(number, image=number != 2) for number in range(9)]
TEXT = [example(number, image=False) for number in range(9)]
ONE = [range(9)]
FOUR = [[8, 7, 6], [0], [5, 4, 3], [2, 1]]  # 26 targets on the first of two ranks, 19 on the second
UNPACKED = [[number] for number in range(9)]
UNEVEN = [[2], [8, 7, 6, 5, 4, 3, 1, 0]]  # the first of two ranks has no image


def step(packs: Sequence[Sequence[int]], group: Group, examples: Sequence[Any] = EXAMPLES) -> StepWork:
    """This rank's part of a step of these packs."""
    micro_batches = []
    for number in range(group.rank, -(-len(packs) // group.world) * group.world, group.world):
        if number < len(packs):
            batch = collate(*zip(*(examples[n] for n in packs[number]), strict=True), odd_config())
            micro_batches.append(MicroBatch(batch, number, 1.0))
        else:
            micro_batches.append(MicroBatch(open_collator(odd_config()).filler(), number, 0.0))
    return StepWork(1, 0.0, tuple(micro_batches), 0, 0)


def gradients(
    settings: TrainConfig,
    packs: Sequence[Sequence[int]],
    drop_path: float = 0.0,
    examples: Sequence[Any] = EXAMPLES,
) -> Gradients:
    """The whole gradient of the step, after which nothing that is frozen may have one."""
    group = Group.current(CPU)
    model = build(odd_config(drop_path))

    def fill(model: Any, device: torch.device, added: frozenset[str]) -> None:
        base = initialise(build(odd_config()), seed=3)
        model.to_empty(device=device)
        from plm_model.nn.tensors import copy_into

        for name, tensor in base.state_dict().items():
            copy_into(model.state_dict()[name], tensor)

    optimizer = assemble(model, fill, settings, group)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            torch.nn.init.constant_(parameter, 0.1)
    before = reduction(model, last_only=settings.parallel.reduce_last_only, exact=settings.exact_elastic)
    accumulate(model.train(), step(packs, group, examples), group, 0, before=before)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return {name: whole(p.grad).clone() for name, p in optimizer.parameters.items()}


def whole(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distance(one: Gradients, other: Gradients) -> float:
    """The largest relative difference of a tensor."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / one[name].norm().clamp(min=1e-30)) for name in one)


# What runs on the ranks

PARALLEL: dict[str, tuple[TrainConfig, Sequence[Sequence[int]]]] = {
    "two ranks": (PLAIN, FOUR),
    "a rank without an image": (PLAIN, UNEVEN),
    "a rank without a pack": (PLAIN, ONE),
    "nothing resharded": (replace(PLAIN, parallel=ParallelSettings(reshard_after_forward=False)), FOUR),
    "reduced in every micro-step": (replace(PLAIN, parallel=ParallelSettings(reduce_last_only=False)), FOUR),
    "offloaded": (replace(PLAIN, parallel=ParallelSettings(cpu_offload=True)), FOUR),
    "in one order": (replace(PLAIN, exact_elastic=True), FOUR),
    "in one order, offloaded": (
        replace(PLAIN, exact_elastic=True, parallel=ParallelSettings(cpu_offload=True)),
        FOUR,
    ),
    "selective": (replace(PLAIN, recompute={"vision": "selective", "decoder": "selective"}), FOUR),
    "full": (replace(PLAIN, recompute={"vision": "full", "decoder": "full"}), FOUR),
}
REPLICATED = {
    "two replicas of two shards": replace(PLAIN, parallel=ParallelSettings(replicas=2)),
    "two replicas, reduced in every micro-step": replace(
        PLAIN, parallel=ParallelSettings(replicas=2, reduce_last_only=False)
    ),
}
FROZEN = {
    "frozen tower": replace(PLAIN, freeze=("^vision_model",)),
    "projector only": replace(PLAIN, freeze=("^vision_model", "^layers", "^tok", "^norm")),
    "adapters": replace(PLAIN, lora=LORA),
}
DTYPES = ("float32", "float64")
RECOMPUTED = ("none", "selective", "full")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def on_four(keep: Callable[[str, Any], None], job: TrainJob) -> None:
    for dtype in DTYPES:
        for name, settings in REPLICATED.items():
            keep(f"{name} {dtype}", gradients(replace(settings, dtype=dtype), FOUR))


def on_two(keep: Callable[[str, Any], None], job: TrainJob) -> None:
    for dtype in DTYPES:
        for name, (settings, packs) in PARALLEL.items():
            keep(f"{name} {dtype}", gradients(replace(settings, dtype=dtype), packs))
        for name, settings in FROZEN.items():
            keep(f"{name} {dtype}", gradients(replace(settings, dtype=dtype), FOUR))
        keep(f"text {dtype}", gradients(replace(PLAIN, dtype=dtype), FOUR, examples=TEXT))
        keep(f"elastic 1 {dtype}", segment(job, dtype, 1, 17))
    for name, settings in FROZEN.items():
        keep(f"{name} bfloat16", gradients(replace(settings, dtype="bfloat16"), FOUR))
    for name in ("selective", "full"):
        keep(f"{name} with dropped paths", gradients(PARALLEL[name][0], FOUR, drop_path=0.5))
    exact(keep, job)


def on_one(keep: Callable[[str, Any], None], job: TrainJob) -> None:
    for dtype in DTYPES:
        keep(f"elastic 2 {dtype}", segment(job, dtype, 18, 34))
    exact(keep, job)


def on_two_again(keep: Callable[[str, Any], None], job: TrainJob) -> None:
    for dtype in DTYPES:
        keep(f"elastic 3 {dtype}", segment(job, dtype, 35, 50))


def exact(keep: Callable[[str, Any], None], job: TrainJob) -> None:
    for dtype in ("float32", "bfloat16"):
        settings = replace(job.settings, exact_elastic=True, dtype=dtype, packs_per_step=3, steps=8, ema_decay=0.9)
        group = Group.current(CPU)
        model, optimizer = prepare(replace(job, settings=settings), group)
        lines = run(settings, job, group, model, optimizer, 1, 8)
        tensors = checkpoint.tensors(model, optimizer)
        keep(f"exact {dtype} on {group.world}", (lines, {name: whole(t) for name, t in tensors.items()}))


def segment(job: TrainJob, dtype: str, first: int, last: int) -> list[float]:
    """The losses of some steps, from where the segment before ended."""
    settings, group = replace(job.settings, dtype=dtype), Group.current(CPU)
    model, optimizer = prepare(replace(job, settings=settings), group)
    state, folder = checkpoint.tensors(model, optimizer), f"{job.folder.checkpoints}/{dtype}-"
    if first > 1:
        dcp.load(state, checkpoint_id=f"{folder}{first - 1}")
        optimizer.resume_after(first - 1)
    lines = run(settings, job, group, model, optimizer, first, last)
    if dist.is_initialized():
        dcp.save(state, checkpoint_id=f"{folder}{last}")
    return [line["train/loss"] for line in lines]


def run(
    settings: TrainConfig, job: TrainJob, group: Group, model: Any, optimizer: Any, first: int, last: int
) -> list[dict[str, float]]:
    """Train some steps; the metrics of each."""
    index, lines = read_index(job.shards.local(INDEX)), []
    reader = ShardReader(ShardFiles(job.shards, job.shards.cache_dir / "cache", 1 << 30), Collator(model.config))
    plan = PackPlan.make(plan_spec(index, settings, Cost(token=1))[0], settings.steps)
    works = step_work(plan, index, reader, rank=group.rank, world=group.world, first=first, last=last)
    train(model, optimizer, works, settings, group, Hooks(on_metrics=lambda step, line: lines.append(line)))
    return lines


def compiled(keep: Callable[[str, Any], None], job: TrainJob) -> None:
    """Packs of several lengths, the second of which makes the length a symbol."""
    for dtype in DTYPES:
        for kind in RECOMPUTED:
            settings = replace(PLAIN, compile=True, dtype=dtype, recompute={"vision": kind, "decoder": kind})
            keep(f"{kind} {dtype}", gradients(settings, FOUR, drop_path=0.5))


Phases = Sequence[tuple[int, Callable[[Callable[[str, Any], None], TrainJob], None]]]
PHASES: Phases = [(4, on_four), (2, on_two), (1, on_one), (2, on_two_again)]


def rank_main(rank: int, folder: Path, job: TrainJob, phases: Phases = PHASES) -> None:
    torch.set_num_threads(1)
    for number, (world, phase) in enumerate(phases):
        if rank < world:
            meeting = f"file://{folder}/meeting{number}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
            kept: dict[str, Any] = {}
            phase(kept.__setitem__, job)
            if rank == 0:
                torch.save(kept, folder / f"phase{number}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("gradients")
    write_shards(folder / "shards", examples=120)
    write_base(folder / "base", odd_config(drop_path=0.2))
    settings = replace(PLAIN, steps=50, packs_per_step=3, pack_tokens=64, pack_media=6, log_every=1)
    shards, base = artifact(folder / "shards", "preprocess"), artifact(folder / "base", "base")
    return TrainJob(settings, shards, base, TrainingFolder(str(folder)))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, job: TrainJob) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(rank_main, (folder, job), nprocs=4)
    return {k: v for n in range(len(PHASES)) for k, v in torch.load(folder / f"phase{n}.pt", weights_only=True).items()}


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def reference(dtype: str) -> Gradients:
    """One process, one pack."""
    return gradients(replace(PLAIN, dtype=dtype), ONE)


# What must be the same


@pytest.mark.parametrize("packs", [FOUR, UNPACKED], ids=["accumulated", "unpacked"])
def test_packs_and_micro_steps_change_no_gradient(
    packs: Sequence[Sequence[int]], dtype: str, reference: Gradients
) -> None:
    assert distance(reference, gradients(replace(PLAIN, dtype=dtype), packs)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", PARALLEL)
def test_two_ranks_change_no_gradient(name: str, dtype: str, reference: Gradients, results: dict[str, Any]) -> None:
    assert distance(reference, results[f"{name} {dtype}"]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", REPLICATED)
def test_replicas_of_shards_change_no_gradient(
    name: str, dtype: str, reference: Gradients, results: dict[str, Any]
) -> None:
    assert distance(reference, results[f"{name} {dtype}"]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_frozen_changes_no_other_gradient(name: str, dtype: str, results: dict[str, Any]) -> None:
    alone = gradients(replace(FROZEN[name], dtype=dtype), ONE)
    assert distance(alone, results[f"{name} {dtype}"]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_frozen_is_stored_in_half_precision_and_gives_nearly_the_same(
    name: str, results: dict[str, Any]
) -> None:
    """The masters of what learns stay in fp32, in one shard unit with what is frozen."""
    half, full = results[f"{name} bfloat16"], gradients(FROZEN[name], ONE)
    assert all(gradient.dtype == torch.float32 for gradient in half.values())
    assert all(F.cosine_similarity(half[n].flatten(), full[n].flatten(), 0) > 0.99 for n in full)


def test_a_step_of_text_gives_the_tower_no_gradient(dtype: str, results: dict[str, Any]) -> None:
    alone, together = gradients(replace(PLAIN, dtype=dtype), ONE, examples=TEXT), results[f"text {dtype}"]
    vision = {name for name in alone if name.startswith("vision_")}
    assert vision and not any(together[name].any() for name in vision)
    assert distance(*({n: g for n, g in x.items() if n not in vision} for x in (alone, together))) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["selective", "full"])
def test_recomputation_drops_the_same_paths(name: str, results: dict[str, Any]) -> None:
    kept = gradients(PLAIN, FOUR, drop_path=0.5)
    assert distance(kept, results[f"{name} with dropped paths"]) <= 1e-5
    assert distance(kept, gradients(PLAIN, FOUR)) > 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
def test_two_ranks_then_one_then_two_lose_what_one_does(
    dtype: str, tolerance: float, job: TrainJob, results: dict[str, Any]
) -> None:
    alone = segment(job, dtype, 1, 50)
    elastic = [loss for part in (1, 2, 3) for loss in results[f"elastic {part} {dtype}"]]
    assert len(elastic) == 50 and elastic[-1] < 0.5 * elastic[0]
    assert elastic == pytest.approx(alone, rel=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exact_elastic_gives_the_same_bits_on_one_rank_and_on_two(dtype: str, results: dict[str, Any]) -> None:
    (losses, tensors), (losses_of_two, tensors_of_two) = (results[f"exact {dtype} on {n}"] for n in (1, 2))
    for name in ("train/loss", "train/grad_norm"):
        assert [line[name] for line in losses] == [line[name] for line in losses_of_two]
    assert tensors.keys() == tensors_of_two.keys()
    assert all(tensors[name].numpy().tobytes() == tensors_of_two[name].numpy().tobytes() for name in tensors)


def test_workers_that_replicas_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.parallel\.replicas is 3; 8 workers"):
        MeshShape.of(8, 3)


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("g++") is None, reason="compilation on a CPU needs a C++ compiler")
def test_compiled_blocks_on_two_ranks_change_no_gradient(tmp_path: Path, job: TrainJob) -> None:
    mp.spawn(rank_main, (tmp_path, job, [(2, compiled)]), nprocs=2)
    results = torch.load(tmp_path / "phase0.pt", weights_only=True)
    for dtype in DTYPES:
        eager = gradients(replace(PLAIN, dtype=dtype), FOUR, drop_path=0.5)
        for kind in RECOMPUTED:
            assert distance(eager, results[f"{kind} {dtype}"]) <= TOLERANCE[dtype]
