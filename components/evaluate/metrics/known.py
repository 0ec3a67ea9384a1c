"""The table of metrics: every score that a configuration can name."""

from __future__ import annotations

from functools import partial

from components.errors import UserError
from components.evaluate.metrics import captions
from components.evaluate.metrics.boxes import iou_box, iou_time
from components.evaluate.metrics.captions import simple_lines
from components.evaluate.metrics.choice import choice
from components.evaluate.metrics.exact_match import exact_match
from components.evaluate.metrics.meteor import corpus_meteor, meteor
from components.evaluate.metrics.metric import Metric, best_of_references
from components.evaluate.metrics.short_answers import anls, contains, relaxed_accuracy, token_recall
from components.evaluate.metrics.vqa import vqa_accuracy

CIDER_BEST = 10.0
SIMPLE = "_simple"
OWN_WORDS = "words split without Java, so not comparable with published values"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact_match", "share of answers equal to a reference", best_of_references(exact_match)),
        Metric("contains", "share of answers in which a reference occurs as whole words", best_of_references(contains)),
        Metric("vqa_accuracy", "VQAv2 accuracy: three agreeing annotators make an answer right", vqa_accuracy),
        Metric("anls", "similarity by edit distance, 0 below 0.5 (DocVQA)", best_of_references(anls)),
        Metric("relaxed_accuracy", "share right, numbers within 5 % (ChartQA)", best_of_references(relaxed_accuracy)),
        Metric("choice", "share of answers that choose the right letter", best_of_references(choice)),
        Metric("token_recall", "share of a reference's words found in the answer", best_of_references(token_recall)),
        Metric("iou_box", "overlap of boxes, intersection over union", best_of_references(iou_box)),
        Metric("iou_time", "overlap of time spans, intersection over union", best_of_references(iou_time)),
        Metric("cider", "CIDEr, 0 to 10 (published tables give it times 100)", captions.cider, CIDER_BEST, java=True),
        Metric("bleu", "BLEU-4 of the whole set", captions.bleu, corpus=captions.corpus_bleu, java=True),
        Metric("rouge_l", "ROUGE-L, longest common subsequence", captions.rouge_l, java=True),
        Metric("meteor", "METEOR 1.5 of the whole set", meteor, corpus=corpus_meteor, java=True),
        Metric(
            "cider_simple", f"CIDEr, 0 to 10; {OWN_WORDS}", partial(captions.cider, tokeniser=simple_lines), CIDER_BEST
        ),
        Metric(
            "bleu_simple",
            f"BLEU-4 of the whole set; {OWN_WORDS}",
            partial(captions.bleu, tokeniser=simple_lines),
            corpus=partial(captions.corpus_bleu, tokeniser=simple_lines),
        ),
        Metric("rouge_l_simple", f"ROUGE-L; {OWN_WORDS}", partial(captions.rouge_l, tokeniser=simple_lines)),
    )
}


def without_java(name: str) -> str:
    """The metric to measure instead of `name` on a machine without Java; one that needs no Java stays itself."""
    if name not in METRICS:
        raise UserError(f"no metric is called {name}; there are {', '.join(METRICS)}")
    if not METRICS[name].java:
        return name
    if name + SIMPLE in METRICS:
        return name + SIMPLE
    others = ", ".join(other for other in METRICS if other.endswith(SIMPLE))
    raise UserError(f"{name} needs Java: install Debian's package default-jre-headless, or choose one of {others}")
