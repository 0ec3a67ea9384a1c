"""Tiny data sets of PLM's image benchmarks, as lmms-eval's tasks read them."""

from __future__ import annotations

from tests.components.evaluate.benchmarks.given import CIDER_ANSWERS, WORDS, Given, picture, rows

BLINK_CONFIGS = (
    "Art_Style Counting Forensic_Detection Functional_Correspondence IQ_Test Jigsaw Multi-view_Reasoning "
    "Object_Localization Relative_Depth Relative_Reflectance Semantic_Correspondence Spatial_Relation "
    "Visual_Correspondence Visual_Similarity"
)
TEN = "0123456789"


def image_sets(image_url: str) -> list[Given]:
    """`image_url` is where COCO's images are fetched from."""
    image = {"image": picture()}
    return [*documents(image), *captions(image, image_url), *questions(image), *choices(image), *yes_or_no(image)]


def documents(image: dict[str, object]) -> list[Given]:
    spelt = rows(
        {**image, "question": "Which?", "docId": 7, "image_url": "u"},
        {"questionId": "1", "answers": ["blue"]},
        {"questionId": "2", "answers": ["12", "twelve"]},
        {"questionId": "3", "answers": ["cat"]},
    )
    charts = rows(
        {**image, "question": "How many?"},
        {"type": "human_test", "answer": "10"},
        {"type": "human_test", "answer": "Red"},
        {"type": "augmented_test", "answer": "100"},
        {"type": "augmented_test", "answer": "Blue"},
    )
    read = rows(
        {**image, "question": "What is written?"},
        {"answer": ["STOP"], "question_type": "Regular Text Recognition", "dataset": "IIIT5K"},
        {"answer": ["exit"], "question_type": "Scene Text-centric VQA", "dataset": "STVQA"},
        {"answer": ["x + 1"], "question_type": "Handwritten Mathematical Expression Recognition", "dataset": "HME100k"},
        {"answer": ["4.20"], "question_type": "Key Information Extraction", "dataset": "SROIE"},
    )
    anls = ["blue", "twelfe", "dog"]  # 1, 1 - 1/6, and 0 as all below a half
    return [
        Given("docvqa_val", "lmms-lab-encoder/DocVQA", "DocVQA", "validation", spelt, anls),
        Given("infovqa_val", "lmms-lab-encoder/DocVQA", "InfographicVQA", "validation", spelt[:2], ["blue", "dog"]),
        Given("chartqa", "lmms-lab-encoder/ChartQA", "default", "test", charts, ["10.4", "red", "110", "Green"]),
        Given("ocrbench", "echo840/OCRBench", "default", "test", read, ["a stop sign", "EXIT", "x+1", "3.20"]),
    ]


def captions(image: dict[str, object], image_url: str) -> list[Given]:
    coco = [
        {"url": image_url, "filename": f"COCO_val2014_{n:012d}.jpg", "imgid": n, "sentences": [text]}
        for n, text in enumerate(WORDS)
    ]
    nocaps = [{**image, "image_id": n, "annotations_captions": [text]} for n, text in enumerate(WORDS)]
    flickr = [{**image, "img_id": str(n), "caption": [text]} for n, text in enumerate(WORDS)]
    return [
        Given("coco_karpathy_val", "yerevann/coco-karpathy", "default", "validation", coco, CIDER_ANSWERS),
        Given("nocaps_val", "lmms-lab-encoder/NoCaps", "default", "validation", nocaps, CIDER_ANSWERS),
        Given("flickr30k_test", "lmms-lab-encoder/flickr30k", "default", "test", flickr, CIDER_ANSWERS),
    ]


def questions(image: dict[str, object]) -> list[Given]:
    """Of ten people's answers: all ten; two of ten, which is (2 * 1/3 + 8 * 2/3) / 10 = 0.6; none."""
    texts = [["red"] * 10, ["red"] * 2 + ["blue"] * 8, ["green"] * 10]
    asked = [
        {**image, "question_id": str(n), "image_id": f"i{n}", "question": "which colour", "answers": answers}
        for n, answers in enumerate(texts)
    ]
    dicts = [
        {**row, "answers": [{"answer": text, "answer_id": int(id)} for text, id in zip(answers, TEN, strict=True)]}
        for row, answers in zip(asked, texts, strict=True)
    ]
    said = ["red", "red", "red"]
    return [
        Given("textvqa_val", "lmms-lab-encoder/textvqa", "default", "validation", asked, said),
        Given("vqav2_val", "lmms-lab-encoder/VQAv2", "default", "validation", dicts, said),
        Given("ok_vqa_val2014", "lmms-lab-encoder/OK-VQA", "default", "val2014", asked, said),
        Given("vizwiz_vqa_val", "lmms-lab-encoder/VizWiz-VQA", "default", "val", asked, said),
    ]


def choices(image: dict[str, object]) -> list[Given]:
    options = ["ant", "bee", "cat", "dog"]
    diagrams = [{**image, "question": "Which?", "options": options, "answer": str(n)} for n in range(4)]
    letters = {"choice_a": "ant", "choice_b": "bee", "choice_c": "cat", "choice_d": "dog"}
    seed = [
        {"image": [picture()], "question": "Which?", **letters, "answer": answer, "data_type": kind, "question_id": id}
        | {"data_id": f"d{id}"}
        for id, answer, kind in (("1", "A", "image"), ("2", "B", "image"), ("3", "C", "video"))
    ]
    subject = rows(
        {"image_1": picture(), "options": "['ant', 'bee']", "question": "<image 1> Which?"},
        {"id": "validation_Math_1", "question_type": "multiple-choice", "answer": "B"},
        {"id": "validation_Art_2", "question_type": "multiple-choice", "answer": "B"},
        {"id": "validation_Math_3", "question_type": "open", "answer": "12"},
    )
    depth = {
        **image,
        "type": "2D",
        "task": "Count",
        "choices": options,
        "prompt": "Which? (A) ant (B) bee (C) cat (D) dog",
    }
    cv = [
        {**depth, "idx": n, "answer": f"({letter})", "source": "COCO", "source_filename": "s.png"}
        for n, letter in enumerate("ABCD")
    ]
    real = [{**image, "image_path": "p", "question": "?", "answer": answer} for answer in ("A", "12", "Downhill", "C")]
    return [
        Given(
            "ai2d_no_mask",
            "Efficient-Large-Model/ai2d-no-mask",
            "default",
            "test",
            diagrams,
            ["A. ant", "B", "A", "D."],
        ),
        Given("seedbench", "lmms-lab-encoder/SEED-Bench", "default", "test", seed, ["A. ant", "A", "D"]),
        Given("mmmu_val", "lmms-lab-encoder/MMMU", "default", "validation", subject, ["(B)", "A", "It is 12."]),
        Given("cv_bench", "nyu-visionx/CV-Bench", "default", "test", cv, ["(A)", "B", "C. cat", "(A)"]),
        Given(
            "realworldqa",
            "lmms-lab-encoder/RealWorldQA",
            "default",
            "test",
            real,
            ["A.", "12", "uphill", "The answer is B"],
        ),
        *[blink(config, right=number < 7) for number, config in enumerate(BLINK_CONFIGS.split())],
    ]


def blink(config: str, right: bool) -> Given:
    """Two questions, both answered right or one of them."""
    two = rows(
        {"prompt": "Which? (A) (B)", "choices": ["x", "y"], "image_1": picture(), "image_2": picture()},
        {"idx": "1", "answer": "(A)", "sub_task": config},
        {"idx": "2", "answer": "(B)", "sub_task": config},
    )
    task = f"blink_{config.lower().replace('-', '_')}"
    return Given(task, "BLINK-Benchmark/BLINK", config, "val", two, ["(A)", "The answer is (B)." if right else "(A)"])


def yes_or_no(image: dict[str, object]) -> list[Given]:
    mme = [
        {
            **image,
            "question_id": id,
            "question": "Is it? Please answer yes or no.",
            "answer": answer,
            "category": category,
        }
        for id, category in (("1", "existence"), ("2", "existence"), ("3", "code_reasoning"))
        for answer in ("Yes", "No")
    ]
    pope = [
        {
            **image,
            "question_id": str(n),
            "question": "Is there one?",
            "answer": answer,
            "image_source": "s",
            "category": "random",
        }
        for n, answer in enumerate(("yes", "yes", "no", "yes", "no"))
    ]
    said = ["Yes", "No.", "Yes", "Yes", "yes", "no"]  # existence: 200 and 50, its mean 125; reasoning: 200
    return [
        Given("mme", "lmms-lab-encoder/MME", "default", "test", mme, said),
        Given("pope", "lmms-lab-encoder/POPE", "default", "test", pope, ["yes", "Yes", "yes", "no", "no"]),
    ]
