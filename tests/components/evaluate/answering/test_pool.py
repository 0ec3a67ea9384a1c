"""Answers are kept chunk by chunk: what a kill costs, what a second time costs, and who answers changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from components.artifacts.artifact import Artifact
from components.artifacts.store import ArtifactStore
from components.evaluate.answering.ask import Ask, ImageFile, Said
from components.evaluate.answering.kept import KeptAnswers
from components.evaluate.answering.pool import Answers, Chunk, Progress, answers, in_this_process, pool_of
from plm_model.answers.options import GenerationOptions

OPTIONS = GenerationOptions(max_new_tokens=3)
BATCH = 2  # a chunk has eight questions
KILLED = """
import os, sys
from pathlib import Path
from tests.components.evaluate.answering.test_pool import Echo, ask_all

folder, chunks, log = sys.argv[1:]
ask_all(30, Path(folder), Echo(Path(log), die_after=int(chunks)))
"""


class Echo:
    """Answers with the question; notes each that it is asked, and kills its process after some chunks."""

    def __init__(self, log: Path, die_after: int | None = None) -> None:
        self.log, self.die_after = log, die_after

    def __call__(self, chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Said]]]:
        for number, chunk in enumerate(chunks):
            asks = chunk()
            with self.log.open("a") as log:
                log.writelines(f"{ask.text}\n" for ask in asks)
            if number == self.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield number, [Said(ask.text.upper()) for ask in asks]


def ask_all(n: int, folder: Path, pool: Echo) -> list[Said]:
    kept = KeptAnswers(str(folder))
    return answers(n, lambda place: Ask(f"q{place}", (), OPTIONS), kept, pool, BATCH, lambda *_: None, Progress())


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_kill_costs_at_most_one_chunk(tmp_path: Path, chunks: int) -> None:
    log, folder = tmp_path / "log", tmp_path / "kept"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(chunks), str(log)], check=False)
    assert killed.returncode == -signal.SIGKILL
    again = ask_all(30, folder, Echo(log))
    assert [said.text for said in again] == [f"Q{n}" for n in range(30)]
    asked = log.read_text().split()
    assert len(set(asked)) == 30 and len(asked) - 30 <= 4 * BATCH


def test_the_second_time_nobody_is_asked(tmp_path: Path) -> None:
    first = ask_all(9, tmp_path / "kept", Echo(tmp_path / "log"))
    (tmp_path / "log").unlink()
    assert ask_all(9, tmp_path / "kept", Echo(tmp_path / "log")) == first
    assert not (tmp_path / "log").exists()


def test_how_long_an_answer_took_is_kept_with_it(tmp_path: Path) -> None:
    spent = []
    for _ in range(2):
        kept, progress = KeptAnswers(str(tmp_path / "kept")), Progress()
        pool = Echo(tmp_path / "log")
        answers(9, lambda place: Ask(f"q{place}", (), OPTIONS), kept, pool, BATCH, lambda *_: None, progress)
        spent.append(progress.seconds)
    assert spent[0] == pytest.approx(spent[1]) and spent[0] > 0


def test_a_file_that_was_not_finished_is_not_read(tmp_path: Path) -> None:
    kept = KeptAnswers(str(tmp_path))
    kept.commit({"a": Said("one"), "b": Said("", "too long")}, 0.5)
    (tmp_path / ".x").write_text('{"key": "c", "text": "tw')
    (tmp_path / "y.answers.jsonl").write_text(
        '{"key": "d"\n{"key": "e", "text": "five", "problem": null, "loss": null, "greedy": null, "seconds": 1}\n'
    )
    again = KeptAnswers(str(tmp_path))
    assert [again.get(key) for key in "abcde"] == [Said("one"), Said("", "too long"), None, None, Said("five")]


def test_answers_are_kept_in_a_bucket_too(s3_bucket: str) -> None:
    KeptAnswers(f"s3://{s3_bucket}/kept").commit({"a": Said("one")}, 0.5)
    assert KeptAnswers(f"s3://{s3_bucket}/kept").get("a") == Said("one")


def test_a_question_is_known_by_all_that_it_shows(tmp_path: Path) -> None:
    grey, red = Image.new("L", (4, 4)), Image.new("RGB", (4, 4), "red")
    red.save(tmp_path / "a.png")
    keys = {
        Ask("q", (), OPTIONS).key,
        Ask("r", (), OPTIONS).key,
        Ask("q", (), GenerationOptions(max_new_tokens=4)).key,
        Ask("q", (grey,), OPTIONS).key,
        Ask("q", (red,), OPTIONS).key,
        Ask("q", (ImageFile(str(tmp_path / "a.png")),), OPTIONS).key,
    }
    assert len(keys) == 6
    before = Ask("q", (ImageFile(str(tmp_path / "a.png")),), OPTIONS).key
    grey.save(tmp_path / "a.png")
    assert Ask("q", (ImageFile(str(tmp_path / "a.png")),), OPTIONS).key != before


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[ArtifactStore, Path], Artifact]) -> Path:
    place = tmp_path_factory.mktemp("pool")
    return tiny_model(ArtifactStore(str(place / "runs"), place / "cache"), place).local()


def mixed(place: int) -> Ask:
    """Questions of many lengths, every third with an image, every tenth too long to be put."""
    shown = (Image.new("RGB", (30, 30), (place, 90, 200)),) if place % 3 == 0 else ()
    return Ask("What is it? " * (200 if place % 10 == 9 else 1 + place % 7), shown, OPTIONS)


def ask_one(ask: Ask, pool: Answers, folder: Path) -> Said:
    (said,) = answers(1, lambda _: ask, KeptAnswers(str(folder)), pool, 1, lambda *_: None, Progress())
    return said


def test_batches_of_like_length_say_what_each_question_alone_does(model: Path, tmp_path: Path) -> None:
    kept = KeptAnswers(str(tmp_path / "kept"))
    together = answers(24, mixed, kept, in_this_process(model, "cpu", 3), 3, lambda *_: None, Progress())
    one = in_this_process(model, "cpu", 1)
    alone = [ask_one(mixed(place), one, tmp_path / "none") for place in (0, 1, 9, 20)]
    assert [together[place] for place in (0, 1, 9, 20)] == alone
    assert together[9].problem is not None and "the prompt has" in together[9].problem


@pytest.mark.e2e  # starts a Ray of its own and loads the model in three actors
def test_three_actors_say_what_one_process_does(model: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 3):
        kept = KeptAnswers(str(tmp_path / str(workers)))
        with pool_of(model, "cpu", BATCH, workers, None) as pool:
            found.append(answers(40, mixed, kept, pool, BATCH, lambda *_: None, Progress()))
    assert found[0] == found[1]
