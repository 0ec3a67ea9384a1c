"""What a line of metrics says is what was computed, whatever the packs."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from components.train.data.loader import MicroBatch, StepWork
from components.train.loop import accumulate
from components.train.measure.metrics import Gauge, Metrics, TimedWorks, Window, metric_part, summarise
from components.train.model.parallel import Group
from components.train.settings import TrainConfig
from plm_model.families.plm.collator import collate, open_collator
from plm_model.families.plm.model import PLM, build, cost
from plm_model.families.plm.weights import initialise
from tests.components.training_set import example, tiny_config

CPU = Group(torch.device("cpu"))
SOURCES = ("captions", "charts", "digits", "never seen")
TILE = np.zeros((1, 3, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def model() -> PLM:
    return initialise(build(tiny_config()), seed=0)


def pack(*sources: str, number: int = 0) -> MicroBatch:
    """A document for each source; the second has seven targets, the others two."""
    examples = [example(n, n) for n in range(len(sources))]
    if len(examples) > 1:
        examples[1].targets[-3:] = 7
    return MicroBatch(collate(examples, [TILE] * len(sources), tiny_config()), number, 1.0, sources=sources)


def work(*packs: MicroBatch, step: int = 1) -> StepWork:
    tokens = sum(len(p.batch.tokens) for p in packs if p.weight)
    return StepWork(step, 0.5, packs, tokens, sum(len(p.sources) for p in packs))


def measured(model: PLM, *works: StepWork, gauge: Gauge | None = None) -> Metrics:
    window = Window(gauge or Gauge.of(model, cost(model), SOURCES, CPU.device))
    for done in works:
        _, supervised = accumulate(model, done, CPU, 0, window.look)
        window.add(done, supervised, waited=0.001)
    return summarise(window, works[-1], 1e-3, torch.tensor(2.0), TrainConfig(), CPU)


def test_losses_by_source_sum_to_the_loss_and_are_those_of_their_documents(model: PLM) -> None:
    one, other = pack("captions", "charts", "digits"), pack("digits", "captions", number=1)
    metrics = measured(model, work(one), work(other))
    expected: dict[str, list[float]] = {}
    for micro in (one, other):
        losses = model(micro.batch).tolist()
        documents = micro.batch.doc[micro.batch.targets != -100].tolist()
        for document, loss in zip(documents, losses, strict=True):
            expected.setdefault(micro.sources[document - 1], []).append(loss)
    for source, losses in expected.items():
        assert metrics[f"train/loss/{source}"] == pytest.approx(np.mean(losses), rel=1e-6)
    weighted = sum(metrics[f"train/loss/{source}"] * len(losses) for source, losses in expected.items())
    assert weighted / sum(map(len, expected.values())) == pytest.approx(metrics["train/loss"], rel=1e-9)


def test_a_source_without_targets_in_the_window_has_no_line(model: PLM) -> None:
    assert "train/loss/never seen" not in measured(model, work(pack("captions")))


def test_a_filler_counts_as_padding_and_as_nothing_else(model: PLM) -> None:
    real, filler = pack("captions", "digits"), MicroBatch(open_collator(tiny_config()).filler(), 1, 0.0)
    alone, with_filler = measured(model, work(real)), measured(model, work(real, filler))
    assert with_filler["train/loss"] == alone["train/loss"] and alone["train/padding"] == 0.0
    assert with_filler["train/padding"] == pytest.approx(1 / (len(real.batch.tokens) + 1))


def test_the_share_of_time_without_data_is_measured() -> None:
    def slow():
        for item in range(3):
            time.sleep(0.02)
            yield item

    waiting = TimedWorks(slow())
    for _ in waiting:
        time.sleep(0.01)
    assert 0.06 <= waiting.take() < 0.12 and waiting.take() == 0.0


def test_utilisation_needs_a_device_that_is_known_and_counts_useful_work_only(model: PLM) -> None:
    found = Gauge.of(model, cost(model), SOURCES, CPU.device).cost
    assert found is not None and "train/mfu" not in measured(model, work(pack("captions")))
    step = work(pack("captions", "digits"), MicroBatch(open_collator(tiny_config()).filler(), 1, 0.0))
    metrics = measured(model, step, gauge=Gauge(SOURCES, found, peak=1e9))
    seconds = step.tokens / metrics["train/tokens_per_s"]
    lengths = torch.bincount(step.micro_batches[0].batch.doc)[1:].tolist()
    useful = found.of(lengths, step.media, step.micro_batches[0].supervised)
    assert metrics["train/mfu"] == pytest.approx(useful / seconds / 1e9, rel=1e-6)


def test_a_step_that_is_dropped_leaves_no_trace(model: PLM) -> None:
    window = Window(Gauge(SOURCES))
    window.look(pack("charts"), torch.full((2,), torch.nan))
    window.drop()
    done = work(pack("captions"))
    _, supervised = accumulate(model, done, CPU, 0, window.look)
    window.add(done, supervised)
    metrics = summarise(window, done, 1e-3, torch.tensor(2.0), TrainConfig(), CPU)
    assert metrics["train/loss"] == pytest.approx(metrics["train/loss/captions"])


def test_time_set_aside_is_not_training_time(model: PLM) -> None:
    done = work(pack("captions"))
    window = Window(started=time.perf_counter() - 100.0, aside=99.0)
    _, supervised = accumulate(model, done, CPU, 0, window.look)
    window.add(done, supervised)
    metrics = summarise(window, done, 1e-3, torch.tensor(2.0), TrainConfig(), CPU)
    assert metrics["train/tokens_per_s"] == pytest.approx(done.tokens / 1.0, rel=0.2)


def test_memory_is_that_of_this_process(model: PLM) -> None:
    assert 0.05 < measured(model, work(pack("captions")))["train/memory_gib"] < 50


def test_a_pack_whose_loss_is_no_number_does_not_hide_the_others(model: PLM) -> None:
    window, done = Window(), work(pack("captions"), pack("captions"))
    window.look(done.micro_batches[0], torch.tensor([float("inf"), 1.0]))
    window.look(done.micro_batches[1], torch.tensor([2.0, 4.0]))
    window.add(done, 4)
    metrics = summarise(window, done, 1e-3, torch.tensor(float("nan")), TrainConfig(), CPU)
    assert metrics["train/loss"] == 3.0 and "train/grad_norm" not in metrics


def test_names_of_sources_suit_the_tracker() -> None:
    assert metric_part("a:b, größe/x.jsonl") == "a:b_ gr__e/x.jsonl"
