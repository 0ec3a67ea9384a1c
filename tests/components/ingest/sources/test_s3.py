"""Ingest from a bucket of a real S3 endpoint whose requests are counted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.store import ArtifactStore
from components.errors import UserError
from components.ingest.sources.s3 import S3Origin
from components.ingest.step import run
from components.pipeline.config import PipelineConfig
from tests.s3_endpoint import S3Endpoint

PART = 64 << 10
BIG = os.urandom(4 * PART + 100)  # five ranges
SMALL = 6


class Bucket:
    """A bucket with six small images and a big one below `set/`, and the ingest of it."""

    def __init__(self, endpoint: S3Endpoint, tmp_path: Path, step_context: Callable[..., Any]) -> None:
        self.endpoint, self.tmp_path, self.step_context = endpoint, tmp_path, step_context
        self.name = endpoint.bucket()
        self.uri = f"s3://{self.name}/set"
        self.calls = 0
        for n in range(SMALL):
            self.put(f"images/{n}.png", b"image %d" % n)
        self.put("images/big.png", BIG)
        names = [*(str(n) for n in range(SMALL)), "big"]
        self.put("labels.csv", ("image,label\n" + "".join(f"images/{name}.png,x\n" for name in names)).encode())
        endpoint.forget()

    def put(self, path: str, data: bytes, **options: Any) -> None:
        self.endpoint.client().put_object(Bucket=self.name, Key=f"set/{path}", Body=data, **options)

    def config(self, **source: Any) -> PipelineConfig:
        values = {"kind": "s3", "uri": self.uri, "part_bytes": PART, "parallel": 4, **source}
        return PipelineConfig.model_validate({"ingest": {"source": values}})

    def ingest(self, root: str | None = None, source: dict[str, Any] | None = None, **context: Any) -> Artifact:
        store = ArtifactStore(root or str(self.tmp_path / "runs"), self.tmp_path / "cache")
        self.calls += 1
        key = StepKey("ingest", config={"call": self.calls})
        with store.create(key) as out:
            run(self.config(**(source or {})).ingest, {}, out, self.step_context(**context))
        artifact = store.find(key)
        assert artifact is not None
        return artifact

    def fetched(self) -> Counter[tuple[str, str | None]]:
        """How often each range of each object was asked for since the last look."""
        counts = Counter((r.key.removeprefix("set/"), r.range) for r in self.endpoint.requests(bucket=self.name))
        self.endpoint.forget()
        return counts


@pytest.fixture
def bucket(s3_endpoint: S3Endpoint, tmp_path: Path, step_context: Callable[..., Any]) -> Bucket:
    return Bucket(s3_endpoint, tmp_path, step_context)


def test_every_object_arrives_once_and_the_big_one_in_ranges(bucket: Bucket) -> None:
    raw = bucket.ingest()
    assert raw.open("images/big.png").read() == BIG
    assert raw.open("images/3.png").read() == b"image 3"
    fetched = bucket.fetched()
    assert set(fetched.values()) == {1}
    assert sum(name == "images/big.png" for name, _ in fetched) == 5
    assert len(fetched) == SMALL + 1 + 5
    assert list((bucket.tmp_path / "cache" / "ingest").glob("*/*")) == []


def test_an_interrupted_ingest_asks_for_no_range_twice(bucket: Bucket) -> None:
    transfers = 0

    def stop_after_some(_: str) -> None:
        nonlocal transfers
        transfers += 1
        if transfers == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bucket.ingest(progress=stop_after_some, source={"parallel": 1})
    before = bucket.fetched()
    raw = bucket.ingest()
    after = bucket.fetched()
    assert 6 <= len(before) < SMALL + 1 + 5
    assert before + after == Counter({key: 1 for key in (before + after)})
    assert raw.open("images/big.png").read() == BIG


def test_an_ingest_that_ends_before_its_commit_fetches_nothing_again(bucket: Bucket) -> None:
    store = ArtifactStore(str(bucket.tmp_path / "runs"), bucket.tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt), store.create(StepKey("ingest")) as out:
        run(bucket.config().ingest, {}, out, bucket.step_context())
        raise KeyboardInterrupt
    bucket.fetched()
    raw = bucket.ingest()
    assert not bucket.fetched()
    assert raw.open("images/big.png").read() == BIG
    assert list((bucket.tmp_path / "cache" / "ingest").glob("*/*")) == []


def test_what_another_ingest_takes_from_the_cache_is_left_to_it(bucket: Bucket) -> None:
    source, cache = bucket.config().ingest.source, bucket.tmp_path / "cache"
    first = S3Origin(source, cache)
    ((_, path),) = first.fetch([first.files["images/1.png"]], lambda size: None)
    first.close()
    second = S3Origin(source, cache)
    first.forget_unless_in_use()
    assert path.read_bytes() == b"image 1"
    second.close()
    first.forget_unless_in_use()
    assert not path.exists()


KILLED = """
import sys
from pathlib import Path
from components.ingest.settings import S3Source
from components.ingest.sources.s3 import S3Origin
origin = S3Origin(S3Source(uri=sys.argv[1], parallel=2, part_bytes=int(sys.argv[2])), Path(sys.argv[3]))
list(origin.fetch(list(origin.files.values()), lambda size: None))
"""


def test_a_killed_ingest_fetches_nothing_whole_again(bucket: Bucket) -> None:
    bucket.endpoint.delay_seconds = 0.15
    command = [sys.executable, "-c", KILLED, bucket.uri, str(PART), str(bucket.tmp_path / "cache")]
    child = subprocess.Popen(command, env={**os.environ, **bucket.endpoint.environment})
    try:
        wait_until(lambda: len(bucket.endpoint.requests(bucket=bucket.name)) >= 7)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    finally:
        bucket.endpoint.delay_seconds = 0.0
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    before = bucket.fetched()
    bucket.ingest()
    again = before & bucket.fetched()
    assert sum(again.values()) <= 2, "at most what the two threads had in flight"
    assert len(before) - len(again) >= 5


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_the_object_with_a_new_etag_is_fetched_again(bucket: Bucket) -> None:
    first = bucket.ingest()
    before = bucket.config().ingest.source.fingerprint()
    bucket.put("images/4.png", b"IMAGE 4")
    assert bucket.config().ingest.source.fingerprint() != before
    bucket.fetched()
    second = bucket.ingest(previous=first)
    assert list(bucket.fetched()) == [("images/4.png", None)]
    assert (second.counts["fetched"], second.counts["reused"]) == (1, SMALL + 1)
    assert second.open("images/4.png").read() == b"IMAGE 4"


def test_an_artifact_on_s3_takes_unchanged_files_over_inside_the_store(bucket: Bucket) -> None:
    root = f"s3://{bucket.endpoint.bucket()}/runs"
    first = bucket.ingest(root)
    bucket.fetched()
    second = bucket.ingest(root, previous=first)
    assert not bucket.fetched()
    assert second.digest == first.digest


def test_names_that_look_like_patterns_are_taken_over_inside_the_store(bucket: Bucket) -> None:
    names = ["images/[1].png", "images/*.png", "images/?.png"]
    for name in names:
        bucket.put(name, name.encode())
    bucket.put("labels.csv", ("image,label\n" + "".join(f"{name},x\n" for name in names)).encode())
    root = f"s3://{bucket.endpoint.bucket()}/runs"
    first = bucket.ingest(root)
    bucket.fetched()
    second = bucket.ingest(root, previous=first)
    assert not bucket.fetched()
    assert second.digest == first.digest
    assert [second.open(name).read() for name in names] == [name.encode() for name in names]


def test_a_damaged_answer_is_noticed_and_asked_for_again(bucket: Bucket) -> None:
    bucket.endpoint.corrupt["set/images/big.png"] = 1
    bucket.endpoint.corrupt["set/images/0.png"] = 1
    raw = bucket.ingest()
    assert raw.open("images/big.png").read() == BIG
    assert raw.open("images/0.png").read() == b"image 0"


def test_an_object_that_stays_damaged_is_named(bucket: Bucket) -> None:
    bucket.endpoint.corrupt["set/images/2.png"] = 99
    try:
        with pytest.raises(UserError, match=r"set/images/2\.png: arrived damaged 2 times: ETag is"):
            bucket.ingest()
    finally:
        bucket.endpoint.corrupt.clear()


def test_the_stored_checksum_guards_an_object_whose_etag_says_nothing(bucket: Bucket) -> None:
    client, key = bucket.endpoint.client(), "set/images/5.png"
    upload = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    part = client.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=b"image five")
    client.complete_multipart_upload(
        Bucket=bucket.name,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert bucket.ingest().open("images/5.png").read() == b"image five"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"uri": "s3://no-such-bucket-here/set"}, r"s3://no-such-bucket-here/set: no such bucket \(at http://127"),
        ({"uri": "s3:/set"}, "is not s3://bucket/prefix"),
        ({"annotations": "none.csv"}, r"set/none\.csv: no such file"),
    ],
)
def test_a_wrong_source_is_one_readable_line(bucket: Bucket, source: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bucket.ingest(source=source)


def test_an_empty_prefix_is_named(bucket: Bucket) -> None:
    with pytest.raises(UserError, match="/other: there are no objects"):
        bucket.ingest(source={"uri": f"s3://{bucket.name}/other"})


def test_an_unreachable_endpoint_is_named_without_its_password(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:secret@127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"/set: cannot be reached at http://127\.0\.0\.1:9") as caught:
        bucket.config().ingest.source.fingerprint()
    assert time.monotonic() - started < 10
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
