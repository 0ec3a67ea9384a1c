"""Tiny files of the eight benchmarks that are tasks of ours, in the formats in which their authors publish them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.benchmarks.how2qa.how2qa import document_of
from tests.components.evaluate.benchmarks.given import Given, jsonl

HALLUCER = ("object_relation", "temporal", "semantic_detail", "external_factual", "external_nonfactual")
EVENTS = ("entire", "interleave", "misleading")
# A judge of descriptions, by what stands in the question: the first key that does decides. `Swims.` is an event of the first
# answer, the reference of which has `Runs.` and `Jumps.`; the second video's answer gets a verdict that cannot be read.
DREAM = {
    "1. Runs.\n2. Jumps.": '{"relations": ["entailment", "neutral"]}',
    "1. Runs.\n2. Swims.": '```json\n{"relations": ["entailment", "contradiction"]}\n```',
    "1. Sings.": "Sings is entailed, I think.",
    "1. Falls.": '{"relations": ["entailment"]}',
    "1. Stands up.": '{"relations": ["neutral"]}',
    "said of video 1": '{"events": ["Runs.", "Swims."]}',
    "said of video 2": '{"events": ["Waits."]}',
    "said of video 3": '{"events": ["Falls."]}',
}


def our_sets() -> list[Given]:
    return [vsr(), how2qa(), star(), tvqa(), videohallucer(), eventhallusion(), cgbench_clue(), dream1k()]


def ours(task: str, answers: Sequence[str], files: Mapping[str, str], media: Sequence[str]) -> Given:
    return Given(f"pipeline_{task}", "", "", "", [], answers, media, files)


def vsr() -> Given:
    rows = [{"image": "1.png", "caption": "The cat is left of the dog.", "label": label} for label in (1, 0, 1, 0)]
    more = {"image_link": "http://x", "relation": "left of", "vote_true_validator_id": [2], "annotator_id": 1}
    files = {"cambridgeltl/vsr_zeroshot/test.jsonl": jsonl({**row, **more} for row in rows)}
    return ours("vsr", ["Yes", "No.", "False", "no, it is not"], files, ["vsr/images/1.png"])


def how2qa() -> Given:
    """The first answer is the right letter, wherever that stands; the second a wrong answer's text."""
    first = {"video_id": "abc", "part": "[0.2:0.6]", "question": "What, then?", "right": "salt"}
    wrong = {"wrong_1": "milk", "wrong_2": "tea", "wrong_3": "oil"}
    letter = document_of({**first, **wrong})["answer"]
    lines = ['abc,[0.2:0.6],milk,tea,oil,"What, then?",salt', "abc,[0.0:1.0],milk,tea,oil,Who?,salt"]
    files = {"ych133/How2R-and-How2QA/how2QA/how2QA_val_release.csv": "\n".join(lines)}
    return ours("how2qa", [f"({letter})", "Tea."], files, ["how2qa/abc.mp4"])


def star() -> Given:
    def row(number: int, answer: str, **graph: Any) -> dict[str, Any]:
        choices = [
            {"choice_id": n, "choice": text, "choice_program": []} for n, text in enumerate(("The cup.", "The bag."))
        ]
        clip = {"video_id": "S1", "start": 0.1, "end": 0.9}
        asked = {"question_id": f"Interaction_{number}", "question": "Which object was taken?"}
        return {**asked, **clip, "answer": answer, "choices": choices, "situations": graph}

    # The keys of `situations` are numbers of frames, others in every row, and their values of no one type.
    rows = [
        row(1, "The bag.", **{"000012": {"bbox": [[1, 2]]}}),
        row(2, "The cup.", **{"000020": []}),
        row(3, "The bag."),
    ]
    files = {"csbobby/STAR_Benchmark/STAR_val.json": json.dumps(rows)}
    return ours("star", ["B", "The answer is B", "the bag"], files, ["star/S1.mp4"])


def tvqa() -> Given:
    answers = {f"a{n}": text for n, text in enumerate(("one", "two", "three", "four", "five"))}
    rows = [
        {"qid": n, "q": "How many?", **answers, "answer_idx": n, "ts": "0-1", "vid_name": "met_s06"} for n in range(4)
    ]
    files = {"jayleicn/TVQA/data/tvqa_val.jsonl": jsonl(rows)}
    return ours("tvqa", ["A. one", "(B)", "A dog", "D"], files, ["tvqa/met_s06.mp4"])


def videohallucer() -> Given:
    """Each kind has two pairs, both answered right; of `temporal` one has a wrong answer: (1 + 1/2 + 1 + 1 + 1) / 5 = 0.9."""

    def rows(kind: str) -> str:
        asked = {"video": f"{kind}.mp4", "question": "Is there a dog?"}
        row = {"basic": {**asked, "answer": "yes"}, "hallucination": {**asked, "answer": "no"}, "type": "subject"}
        return json.dumps([row, row])

    files = {f"bigai-nlco/VideoHallucer/{kind}/{kind}.json": rows(kind) for kind in HALLUCER}
    said = [answer for kind in HALLUCER for answer in ("Yes.", "No", "yes", "yes" if kind == "temporal" else "No.")]
    return ours("videohallucer", said, files, [f"videohallucer/{kind}/videos/{kind}.mp4" for kind in HALLUCER])


def eventhallusion() -> Given:
    """Two questions about one video and one about each of two others; the third answer says neither yes nor no."""

    def row(kind: str, *answers: str) -> str:
        questions = [{"type": "hallucination", "question": "Did it fall?", "answer": answer} for answer in answers]
        info = {"category": "daily", "length": "00:06", "event_info": {"object": ["person"], "scene": "Inside."}}
        return json.dumps([{"id": f"{kind}_001", **info, "questions": questions}])

    asked = {"entire": ("Yes.", "No."), "interleave": ("Yes.",), "misleading": ("No.",)}
    files = {
        f"Stevetich/EventHallusion/questions/{kind}_questions.json": row(kind, *answers)
        for kind, answers in asked.items()
    }
    said = ["Yes, it did.", "no", "It fell.", "No."]
    return ours("eventhallusion", said, files, [f"eventhallusion/{kind}/{kind}_001.mp4" for kind in EVENTS])


def cgbench_clue() -> Given:
    rows = [
        {
            "qid": n,
            "video_uid": "u",
            "question": "Which?",
            "choices": ["ant", "bee"],
            "answer": "bee",
            "right_answer": "B",
        }
        | {"clue_intervals": [[0.5, 0.9], [0.1, 0.3]], "domain": "x"}
        for n in range(3)
    ]
    files = {"CG-Bench/CG-Bench/cgbench_mini.json": json.dumps(rows)}
    return ours("cgbench_clue", ["B", "b. bee", "A. ant"], files, ["cg_videos_720p/u.mp4"])


def dream1k() -> Given:
    """Source a: recall 1/2 and precision 1/2, and a video without a readable verdict. Source b: recall 0, precision 1.
    Means over sources: recall 1/4, precision 3/4; F1 = 2 * 3/16 / 1 = 0.375."""
    told = [("a", ["Runs.", "Jumps."]), ("a", ["Sings."]), ("b", ["Stands up."])]
    rows = [
        {"idx": n, "vid": n, "dataset": f"DREAM/{source}", "text": {"prompt": "<video>", "response": f"the text {n}"}}
        | {"extra_info": {"events": events, "duration": 1.0}}
        for n, (source, events) in enumerate(told, 1)
    ]
    files = {"bytedance/tarsier/data/annotations/DREAM-1k.jsonl": jsonl(rows)}
    said = [f"what is said of video {n}" for n in (1, 2, 3)]
    return ours("dream1k", said, files, [f"dream1k/{n}.mp4" for n in (1, 2, 3)])
