"""Tiny data sets of PLM's video benchmarks, as lmms-eval's tasks read them."""

from __future__ import annotations

from tests.components.evaluate.benchmarks.given import CIDER_ANSWERS, WORDS, Given, jsonl, rows

MVBENCH = {  # a task's videos, in the folder of the data set that they come from
    "action_antonym": "ssv2_video_mp4",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video_segment",
    "action_prediction": "star/Charades_segment",
    "action_sequence": "star/Charades_segment",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd_convert",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_segment",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}
TVBENCH = (
    "action_antonym action_count action_localization action_sequence egocentric_sequence moving_direction object_count "
    "object_shuffle scene_transition unexpected_action"
)
JUDGED = {  # what stands in a question to the judge -> what it answers
    "said-dog": "{'pred': 'yes', 'score': 5}",
    "said-cat": "{'pred': 'no', 'score': 1}",
    "said-bird": "Hard to say.",
    "the second one": "Correct",
    "the other one": "Incorrect",
    "neither of them": "Hard to say.",
}


def video_sets() -> list[Given]:
    return [
        *[mvbench(task, folder, right=n < 10) for n, (task, folder) in enumerate(MVBENCH.items())],
        *[tvbench(task, right=n < 5) for n, task in enumerate(TVBENCH.split())],
        *choices(),
        *free_answers(),
    ]


def mvbench(task: str, folder: str, right: bool) -> Given:
    """Two questions, both answered right or one of them."""
    two = rows({"video": "v.mp4", "question": "Which?", "candidates": ["x", "y"]}, {"answer": "x"}, {"answer": "y"})
    said = ["(A) x", "(B) y" if right else ""]  # lmms-eval leaves an empty answer out of the accuracy
    return Given(f"mvbench_{task}", "OpenGVLab/MVBench", task, "train", two, said, [f"mvbench_video/{folder}/v.mp4"])


def tvbench(task: str, right: bool) -> Given:
    two = rows(
        {"video": f"{task}.mp4", "question": "Which?", "candidates": ["up", "down"]},
        {"answer": "up"},
        {"answer": "down"},
    )
    said = ["A", "It goes down" if right else "A"]
    return Given(f"tvbench_{task}", "FunAILab/TVBench", task, "train", two, said, [f"tvbench/{task}.mp4"])


def choices() -> list[Given]:
    five = {f"a{n}": word for n, word in enumerate(("ant", "bee", "cat", "dog", "eel"))}
    nextqa = rows({"video": "5", "question": "Which?", **five}, {"answer": 0}, {"answer": 3})
    perception = rows(
        {"video_name": "video_1", "question": "Which?", "options": ["x", "y", "z"]},
        {"answer_id": "0"},
        {"answer_id": "2"},
        {"answer_id": "1"},
        {"answer_id": "1"},
    )
    mme = rows(
        {"videoID": "v", "question": "?", "options": ["A. x", "B. y", "C. z", "D. w"], "domain": "Knowledge"}
        | {"sub_category": "Law", "task_type": "OCR Problems"},
        {"question_id": "1", "duration": "short", "answer": "A"},
        {"question_id": "2", "duration": "long", "answer": "B"},
        {"question_id": "3", "duration": "long", "answer": "C"},
        {"question_id": "4", "duration": "long", "answer": "D"},
    )
    ego = rows(
        {"video_idx": "e", "question": "?", "option": [f"{x}. {x}" for x in "ABCDE"]}, {"answer": "2"}, {"answer": "4"}
    )
    temporal = rows(
        {"question": "?", "dataset": "d", "category": "Others"},
        {"idx": 1, "video_name": "s/1.mp4", "GT": "A"},
        {"idx": 2, "video_name": "s/1.mp4", "GT": "B"},
        {"idx": 3, "video_name": "s/2.mp4", "GT": "A"},
        {"idx": 4, "video_name": "s/2.mp4", "GT": "B"},
    )
    tomato = rows(
        {"question": "?", "options": ["x", "y"], "reason_type": "count", "demonstration_type": "human"}
        | {"video_path": "videos/human/1.mp4"},
        {"id": "1", "answer": 0},
        {"id": "2", "answer": 1},
    )
    motion = {"key": "k", "video_path": "m.mp4", "video_type": "web", "question_type": "Camera Motion"}
    asked = [
        {"uid": str(n), "question": "How?\nA. up\nB. down", "answer": answer}
        for n, answer in enumerate(["A", "B", "NA"])
    ]
    published = {"zai-org/MotionBench/data/video_info.meta.jsonl": jsonl([{**motion, "qa": asked}])}
    temporal_videos = ["temporalbench/s/1.mp4", "temporalbench/s/2.mp4"]
    perceived = ["perceptiontest_val/videos/video_1.mp4"]
    return [
        Given("nextqa_mc_test", "lmms-eval/NExTQA", "MC", "test", nextqa, ["A. ant", "B"], ["nextqa/NExTVideo/5.mp4"]),
        Given(
            "perceptiontest_val_mc",
            "lmms-eval/PerceptionTest_Val",
            "mc_question_val",
            "validation",
            perception,
            ["A", "C. z", "C", "(B)"],
            perceived,
        ),
        Given(
            "videomme", "lmms-eval/Video-MME", "default", "test", mme, ["A", "(B)", "A", "D."], ["videomme/data/v.mp4"]
        ),
        Given(
            "egoschema_subset", "lmms-eval/egoschema", "Subset", "test", ego, ["C.", "A"], ["egoschema/videos/e.mp4"]
        ),
        Given(
            "temporalbench_short_qa",
            "microsoft/TemporalBench",
            "default",
            "test_short_qa",
            temporal,
            ["A", "b.", "A", ""],
            temporal_videos,
        ),
        Given("tomato", "lmms-eval/TOMATO", "default", "test", tomato, ["A", "A"], ["TOMATO/videos/human/1.mp4"]),
        Given("motionbench_full", "", "", "", [], ["A", "The answer is A"], ["motionbench/videos/m.mp4"], published),
    ]


def free_answers() -> list[Given]:
    vatex = [{"videoID": f"v{n}", "enCap": [text]} for n, text in enumerate(WORDS)]
    activity = rows(
        {"video_name": "x", "question": "what", "answer": "dog", "type": "5"},
        {"question_id": "1"},
        {"question_id": "2"},
        {"question_id": "3"},
    )
    temp = rows(
        {"video_id": "t", "question": "?\nA. up\nB. down", "dim": "direction"},
        *[{"answer": "B. down"} for _ in range(5)],
    )
    charades = rows({"video": "c.mp4", "timestamp": [0.0, 10.0]}, {"caption": "a"}, {"caption": "b"}, {"caption": "c"})
    said = ["B. down", "A", "it is the second one", "it is the other one", "neither of them"]
    times = ["The event happens in the 0.0 - 5.0 seconds", "The event happens in the 0 - 10 seconds", "never"]
    return [
        Given(
            "vatex_test",
            "lmms-eval/VATEX",
            "vatex_test",
            "test",
            vatex,
            CIDER_ANSWERS,
            ["vatex_test/v0.mp4", "vatex_test/v1.mp4"],
        ),
        Given(
            "activitynetqa",
            "lmms-eval/ActivityNetQA",
            "default",
            "test",
            activity,
            ["said-dog", "said-cat", "said-bird"],
            ["activitynetqa/all_test/v_x.mp4"],
        ),
        Given(
            "tempcompass_multi_choice",
            "lmms-eval/TempCompass",
            "multi-choice",
            "test",
            temp,
            said,
            ["tempcompass/videos/t.mp4"],
        ),
        Given(
            "temporal_grounding_charades",
            "lmms-eval/charades_sta",
            "default",
            "test",
            charades,
            times,
            ["charades_sta/Charades_v1_480/c.mp4"],
        ),
    ]
