"""From shards to the packs of a step: places, caches, processes, and what happens to an example that cannot be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as parquet
import pytest
import torch
from filelock import FileLock

from components.artifacts.artifact import Artifact
from components.artifacts.files import filesystem
from components.artifacts.sums import DamagedFile
from components.errors import UserError
from components.shards.cache import ShardFiles
from components.shards.reader import CorruptExample, Index, Place, ShardReader, read_index
from components.train.checkpoints import checkpoint
from components.train.data.loader import PackRequest, StepWork, prefetched, read_pack, step_work, steps_ahead
from components.train.data.plan import Cost, PackPlan
from components.train.data.rejected import Rejected, RejectedLog, TooManyCorrupt, read_rejected
from components.train.data.selection import plan_spec
from components.train.folder import TrainingFolder
from components.train.settings import TrainConfig
from components.train.worker import TrainJob, run_rank
from plm_model.families.plm.collator import Collator
from tests.components.training_set import SHARD_SCHEMA, artifact, example, tiny_config, write_base, write_shards

SETTINGS = TrainConfig(packs_per_step=3, pack_tokens=64, pack_media=6)
INDEX = "train/index.parquet"


def reader_of(shards: Artifact, **options: Any) -> ShardReader:
    return ShardReader(ShardFiles(shards, shards.cache_dir / "cache", 1 << 30), Collator(tiny_config()), **options)


def index_of(shards: Artifact) -> Index:
    return read_index(shards.local(INDEX))


def works(
    shards: Artifact,
    steps: int = 4,
    rank: int = 0,
    world: int = 1,
    settings: TrainConfig = SETTINGS,
    processes: int = 0,
) -> list[StepWork]:
    index = index_of(shards)
    plan = PackPlan.make(plan_spec(index, settings, Cost())[0], steps)
    reader = reader_of(shards)
    return list(step_work(plan, index, reader, rank=rank, world=world, first=1, last=steps, processes=processes))


def ids(steps: Sequence[StepWork]) -> list[list[str]]:
    return [sorted(id for micro in work.micro_batches for id in micro.ids) for work in steps]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", examples=23, per_shard=9)


def damage(shards: Artifact, shard: str, row: int) -> None:
    """Put bytes that are no image in the place of a row's image. Nothing notes what the file was before."""
    path = Path(shards.uri, "train", shard)
    rows = parquet.read_table(path).to_pylist()
    rows[row]["media"] = [{"kind": "image", "data": b"\x89PNG no"}]
    import pyarrow as pa

    parquet.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), path, row_group_size=5)


@pytest.fixture
def damaged(tmp_path: Path) -> Artifact:
    shards = write_shards(tmp_path / "shards", examples=23, per_shard=9)
    damage(shards, "shard-00001.parquet", 2)
    return artifact(Path(shards.uri), "preprocess")  # it was so when it was recorded


# --- reading


def test_reader_gives_each_row_as_it_was_written(shards: Artifact) -> None:
    index, reader = index_of(shards), reader_of(shards, cache_bytes=20_000)
    for number in (22, 3, 9, 8, 0, 22):
        found = reader.read(index.place(number))
        assert found.id == f"e{number}" and found.example.tokens.tolist() == example(number, number % 6).tokens.tolist()
        assert found.media["tiles"].shape == (1, 3, 28, 28) and found.media["tiles"].flat[0] == 20 + 30 * (number % 8)


def test_an_index_names_shards_sources_and_on_demand_ids(shards: Artifact) -> None:
    index = index_of(shards)
    assert len(index) == 23 and index.source(4) == "test" and index.place(9) == Place("train/shard-00001.parquet", 0)
    assert index.ids(np.array([22, 0])) == ["e22", "e0"]


def test_an_example_that_no_pack_holds_is_left_out_and_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", examples=120)
    index = index_of(shards)
    index.tokens[17] = 99
    spec, left_out = plan_spec(index, SETTINGS, Cost())
    assert left_out == [
        Rejected("e17", "test", "train/shard-00001.parquet", 1, "99 tokens, more than train.pack_tokens=64")
    ]
    assert 17 not in spec.sources[0].rows and spec.examples == 119


def test_more_than_a_few_too_large_examples_are_refused(shards: Artifact) -> None:
    index = index_of(shards)
    index.tokens[5] = 99
    with pytest.raises(UserError, match=r"example e5 has 99 tokens, more than train.pack_tokens=64, as 1 of 23 "):
        plan_spec(index, SETTINGS, Cost())


# --- the work of a rank


def test_a_step_trains_on_the_same_records_on_any_number_of_ranks(shards: Artifact) -> None:
    alone = ids(works(shards))
    for world in (2, 3, 5):
        together = [ids(works(shards, rank=rank, world=world)) for rank in range(world)]
        assert [sorted(chain(*step)) for step in zip(*together, strict=True)] == alone


def test_one_row_feeds_more_readers_than_there_are_rows(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", examples=1)
    steps = [works(shards, rank=rank, world=5, steps=3) for rank in range(5)]
    assert [[micro.ids for micro in rank[2].micro_batches] for rank in steps] == [[("e0",)]] * 3 + [[()]] * 2
    assert all(work.micro_batches[0].batch.media["tiles"].dtype == torch.uint8 for rank in steps for work in rank)


def test_processes_read_what_the_thread_reads(damaged: Artifact) -> None:
    """Two processes for one rank; the order stays that of the plan, and what is corrupt is named."""
    state = torch.get_rng_state()
    here, there = works(damaged, steps=4), works(damaged, steps=4, processes=2)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(here, there, strict=True):
        for left, right in zip(one.micro_batches, other.micro_batches, strict=True):
            assert (left.number, left.ids, left.rejected) == (right.number, right.ids, right.rejected)
            assert torch.equal(left.batch.tokens, right.batch.tokens) and torch.equal(
                left.batch.media["tiles"], right.batch.media["tiles"]
            )


def test_memory_does_not_grow_with_the_packs_of_a_step() -> None:
    assert steps_ahead(2, 2) == 8 and steps_ahead(64, 4) == 1


def test_what_reads_ahead_ends_with_the_block() -> None:
    closed = threading.Event()

    def endless():
        try:
            yield from iter(int, 1)
        finally:
            closed.set()

    with prefetched(endless(), 2) as ready:
        next(ready)
    assert closed.wait(5)


ORPHANS = """
import sys
sys.path.insert(0, ".")
from pathlib import Path
from tests.components.train.data.test_loader import artifact_of, endless_packs
if __name__ == "__main__":
    for micro in endless_packs(Path(sys.argv[1])):
        print("reading", flush=True)
"""


def artifact_of(folder: Path) -> Artifact:
    from tests.components.training_set import artifact

    return artifact(folder, "preprocess")


def endless_packs(folder: Path):
    shards = artifact_of(folder)
    index = index_of(shards)
    plan = PackPlan.make(plan_spec(index, SETTINGS, Cost())[0], 10_000)
    yield from step_work(plan, index, reader_of(shards), rank=0, world=1, first=1, last=10_000, processes=1)


@pytest.mark.e2e
def test_loader_processes_end_when_the_training_is_killed(shards: Artifact, tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    command, environment = [sys.executable, str(tmp_path / "orphans.py"), shards.uri], {**os.environ, "PYTHONPATH": "."}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "reading\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


# --- an example that cannot be read


def test_a_corrupt_example_counts_nothing_and_is_named(damaged: Artifact) -> None:
    steps = works(damaged, steps=4)
    rejected = [one for work in steps for one in work.rejected]
    assert {(one.id, one.source, one.shard, one.row) for one in rejected} == {
        ("e11", "test", "train/shard-00001.parquet", 2)
    }
    assert "image" in rejected[0].reason
    pack = next(micro for work in steps for micro in work.micro_batches if micro.rejected)
    document = pack.ids.index("e11") + 1
    assert len(pack.ids) > 1 and (pack.batch.doc == document).sum() == 1
    assert (pack.batch.targets[pack.batch.doc == document] == -100).all() and pack.supervised == 2 * (len(pack.ids) - 1)


def test_a_pack_of_nothing_else_becomes_a_filler(damaged: Artifact) -> None:
    micro = read_pack(reader_of(damaged), PackRequest(7, (Place("train/shard-00001.parquet", 2),), ("test",)))
    assert (micro.number, micro.weight, micro.supervised, micro.ids) == (7, 0.0, 0, ()) and len(micro.rejected) == 1


def test_an_example_whose_tiles_do_not_fit_its_tokens_is_corrupt(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", examples=3)
    path = Path(shards.uri, "train", "shard-00000.parquet")
    rows = parquet.read_table(path).to_pylist()
    rows[1]["media"] = []
    import pyarrow as pa

    parquet.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), path)
    with pytest.raises(CorruptExample, match="example e1 has 1 image placeholders, but its 0 tiles"):
        reader_of(artifact(Path(shards.uri), "preprocess")).read(Place("train/shard-00000.parquet", 1))


def test_bytes_lost_inside_a_shard_are_corrupt_a_shard_that_is_gone_is_an_error(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", examples=8)
    path = Path(shards.uri, "train", "shard-00000.parquet")
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    shards = artifact(Path(shards.uri), "preprocess")  # they were lost before anything was recorded
    micro = read_pack(reader_of(shards), PackRequest(0, (Place("train/shard-00000.parquet", 0),), ("test",)))
    assert micro.rejected[0].id == "row 0 of train/shard-00000.parquet" and micro.rejected[0].reason
    with pytest.raises(OSError, match=r"row 3 of train/shard-00009.parquet"):
        read_pack(reader_of(shards), PackRequest(0, (Place("train/shard-00009.parquet", 3),), ("test",)))


def test_what_was_rejected_is_written_once_however_often_it_is_met(damaged: Artifact, tmp_path: Path) -> None:
    log = RejectedLog(str(tmp_path / "rejected"))
    assert len(list(log.noted(works(damaged, steps=12)))) == 12 and log.met > 1
    assert [one.id for one in read_rejected(log.uri)] == ["e11"]
    assert read_rejected(str(tmp_path / "nothing")) == []


def test_training_goes_on_around_a_corrupt_example(damaged: Artifact, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", tiny_config())
    job = TrainJob(replace(SETTINGS, steps=9), damaged, base, TrainingFolder(str(tmp_path / "resume")))
    run_rank(job, torch.device("cpu"))
    lines = [
        json.loads(line)
        for line in checkpoint.read_metrics(checkpoint.newest(job.folder.checkpoints) or "").splitlines()
    ]
    assert lines[-1]["step"] == 9 and sum(line["train/rejected_examples"] for line in lines) > 0
    assert [one.id for one in read_rejected(str(tmp_path / "resume" / "skipped"))] == ["e11"]


def test_too_much_corrupt_data_ends_the_training(tmp_path: Path) -> None:
    log = RejectedLog(str(tmp_path), read=500)
    bad = [Rejected(f"e{n}", "a", "s", n, "not an image") for n in range(11)]
    log.add(bad[:10])
    with pytest.raises(TooManyCorrupt, match=r"11 of the 500 examples read so far are corrupt, the last of them e10 "):
        log.add(bad[10:])


# --- a shard that changed since it was recorded


def flip(path: Path, at: int) -> None:
    """Another byte in the middle of a file, its size and times as before."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.case("R2")
@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.e2e)])  # torch's import, once more
def test_a_changed_byte_in_a_shard_ends_the_reading_with_its_name_in_one_line(tmp_path: Path, processes: int) -> None:
    shards = write_shards(tmp_path / "shards", examples=23, per_shard=9)
    flip(Path(shards.uri, "train/shard-00001.parquet"), 700)
    with pytest.raises(UserError) as raised:
        works(shards, steps=4, processes=processes)
    assert type(raised.value) is DamagedFile and str(raised.value) == (
        f"{shards.uri}/train/shard-00001.parquet holds other bytes than were recorded; "
        "run `plm preprocess` with this config, or the whole chain again: it is made anew"
    )


@pytest.mark.case("R2")
def test_the_index_is_compared_too(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", examples=8)
    flip(Path(shards.uri, INDEX), 60)
    with pytest.raises(DamagedFile, match=r"train/index\.parquet holds other bytes"):
        index_of(shards)


@pytest.mark.case("R2")
def test_a_cached_shard_is_compared_by_every_process_and_fetched_again(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=8), "memory://changed")
    name = "train/shard-00000.parquet"
    ShardFiles(shards, tmp_path / "cache", 1 << 30).open(name).close()
    (cached_name,) = cached(tmp_path / "cache")
    flip(tmp_path / "cache" / cached_name, 300)
    with ShardFiles(replace(shards), tmp_path / "cache", 1 << 30).open(name) as file:
        assert file.read() == Path(tmp_path, "shards", name).read_bytes()


@pytest.mark.case("R2")
def test_a_shard_that_arrives_damaged_twice_is_refused_by_name(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=8), "memory://wrong")
    name = "train/shard-00000.parquet"
    data = Path(tmp_path, "shards", name).read_bytes()
    filesystem("memory://wrong")[0].pipe_file(f"/wrong/{name}", data[:300] + bytes([data[300] ^ 1]) + data[301:])
    with pytest.raises(DamagedFile, match=r"memory://wrong/train/shard-00000\.parquet holds other bytes"):
        ShardFiles(shards, tmp_path / "cache", 1 << 30).open(name)
    assert cached(tmp_path / "cache") == {}


# --- the cache of shards


def remote(shards: Artifact, uri: str) -> Artifact:
    """The same data set on an object store."""
    fs, path = filesystem(uri)
    for name in shards.files:
        fs.pipe_file(f"{path}/{name}", Path(shards.uri, name).read_bytes())
    return replace(shards, uri=uri)


def cached(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}


def test_shards_of_an_object_store_are_fetched_once(shards: Artifact, s3_bucket: str, tmp_path: Path) -> None:
    files = ShardFiles(remote(shards, f"s3://{s3_bucket}/data"), tmp_path / "cache", 1 << 30)
    for _ in range(2):
        with files.open("train/shard-00001.parquet") as file:
            assert file.read() == Path(shards.uri, "train/shard-00001.parquet").read_bytes()
    (name,) = cached(tmp_path / "cache")
    assert name.endswith("train-shard-00001.parquet") and ".part-" not in name


def test_the_cache_stays_under_its_limit_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=60, per_shard=10), "memory://limit")
    size = max(entry["size"] for name, entry in shards.files.items() if "shard-" in name)
    files = ShardFiles(shards, tmp_path / "cache", int(2.5 * size))
    for number, shard in enumerate((0, 1, 0, 2, 3, 4, 0, 5)):
        with files.open(f"train/shard-{shard:05d}.parquet") as file:
            assert file.read(4) == b"PAR1"
        sizes = cached(tmp_path / "cache")
        assert sum(sizes.values()) <= files.limit and len(sizes) == min(number + 1, 2)
        os.utime(tmp_path / "cache" / next(n for n in sizes if f"{shard:05d}" in n), (number, number))
        if number == 3:
            assert sorted(name[-13:-8] for name in sizes) == ["00000", "00002"]


def test_a_shard_that_is_removed_while_it_is_read_stays_readable(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=20, per_shard=10), "memory://removed")
    size = max(entry["size"] for name, entry in shards.files.items() if "shard-" in name)
    files = ShardFiles(shards, tmp_path / "cache", int(1.2 * size))
    with files.open("train/shard-00000.parquet") as first, files.open("train/shard-00001.parquet"):
        assert len(cached(tmp_path / "cache")) == 1
        assert first.read() == Path(tmp_path, "shards/train/shard-00000.parquet").read_bytes()


def test_what_a_store_fails_to_give_is_no_corrupt_example(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=20, per_shard=10), "memory://failing")
    filesystem("memory://failing")[0].rm_file("/failing/train/shard-00001.parquet")  # an error without an errno
    reader = ShardReader(ShardFiles(shards, tmp_path / "cache", 1 << 30), Collator(tiny_config()))
    with pytest.raises(OSError, match="shard-00001") as raised:
        reader.read(Place("train/shard-00001.parquet", 3))
    assert raised.value.errno is not None


def test_a_shard_that_was_cut_short_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=20, per_shard=10), "memory://cut")
    files = ShardFiles(shards, tmp_path / "cache", 1 << 30)
    files.open("train/shard-00000.parquet").close()
    (name,) = cached(tmp_path / "cache")
    (tmp_path / "cache" / name).write_bytes(b"PAR1")
    with files.open("train/shard-00000.parquet") as file:
        assert file.read() == Path(tmp_path, "shards/train/shard-00000.parquet").read_bytes()


def test_readers_that_compete_for_a_small_cache_all_get_their_shards(tmp_path: Path) -> None:
    local = write_shards(tmp_path / "shards", examples=60, per_shard=10)
    size = max(entry["size"] for name, entry in local.files.items() if "shard-" in name)
    files = ShardFiles(remote(local, "memory://compete"), tmp_path / "cache", int(1.2 * size))
    wrong: list[Any] = []

    def read(seed: int) -> None:
        try:
            for shard in np.random.default_rng(seed).integers(0, 6, 12):
                name = f"train/shard-{shard:05d}.parquet"
                with files.open(name) as file:
                    assert file.read() == Path(local.uri, name).read_bytes()
                with FileLock(files.folder / "locks" / "room"):  # no shard comes or goes while they are counted
                    held = sum(cached(files.folder).values())
                assert held <= files.limit
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_download_that_was_cut_short_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    local = write_shards(tmp_path / "shards", examples=5)
    name = "train/shard-00000.parquet"
    files = dict(local.files) | {name: {"size": local.files[name]["size"] + 1}}
    shards = replace(remote(local, "memory://short"), manifest={**local.manifest, "files": files})
    with pytest.raises(OSError, match="bytes came"):
        ShardFiles(shards, tmp_path / "cache", 1 << 20).open(name)
    assert cached(tmp_path / "cache") == {}


@pytest.mark.case("R19")
def test_what_a_killed_download_left_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """It holds all the room there is; while its process lives, it is waited for."""
    shards = remote(write_shards(tmp_path / "shards", examples=5), "memory://left")
    files = ShardFiles(shards, tmp_path / "cache", 1 << 20)
    (tmp_path / "cache" / "locks").mkdir(parents=True)
    script = (
        "import sys; from pathlib import Path; from components.shards.cache import ShardFiles\n"
        "held = ShardFiles(None, Path(sys.argv[1]), 2 << 20)._reserve('y', 1 << 20)\n"
        "print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cache")], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert other.stdout is not None and other.stdout.readline()
    assert not files._make_room(1)
    other.kill()
    other.wait()
    files.open("train/shard-00000.parquet").close()
    assert [name for name in cached(tmp_path / "cache") if ".part-" in name] == []


def test_a_shard_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    shards = remote(write_shards(tmp_path / "shards", examples=5), "memory://large")
    with pytest.raises(UserError, match=r"more than train.shard_cache_gb allows; raise it"):
        ShardFiles(shards, tmp_path / "cache", 100).open("train/shard-00000.parquet")


def test_a_rank_trains_from_an_object_store_through_the_cache(shards: Artifact, s3_bucket: str, tmp_path: Path) -> None:
    there = replace(remote(shards, f"s3://{s3_bucket}/data"), cache_dir=tmp_path)
    assert ids(works(there)) == ids(works(shards))
    assert sorted(name[-13:-8] for name in cached(tmp_path / "cache")) == ["00000", "00001", "00002"]
