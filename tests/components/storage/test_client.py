"""A storage root in S3 that misbehaves: tried for a bounded time, named in one line, nothing lost, nothing wrong taken."""

from __future__ import annotations

import errno
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.artifacts.artifact import Artifact, StepKey
from components.artifacts.files import filesystem
from components.artifacts.store import ArtifactStore
from components.errors import StorageError, UserError
from components.media_files.root import MediaRoot, MissingMedia
from components.shards.cache import ShardFiles
from components.storage import client as storage_client
from components.storage.client import Limits
from tests.s3_endpoint import Fault, S3Endpoint

pytestmark = pytest.mark.case("R11")
KEY = StepKey("ingest", config={"limit": 3})
DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(attempts=4, total_seconds=20.0, read_seconds=0.4, attempt_seconds=5.0, first_pause=0.01)
    monkeypatch.setattr(storage_client, "LIMITS", limits)
    monkeypatch.setattr(storage_client, "PART_BYTES", 4096)


@pytest.fixture
def endpoint(s3_endpoint: S3Endpoint) -> Iterator[S3Endpoint]:
    s3_endpoint.forget()
    yield s3_endpoint
    s3_endpoint.faults.clear()


@pytest.fixture
def uri(endpoint: S3Endpoint) -> str:
    """An object of ten kilobytes."""
    bucket = endpoint.bucket()
    endpoint.client().put_object(Bucket=bucket, Key="set/a.bin", Body=DATA)
    return f"s3://{bucket}/set/a.bin"


def cat(uri: str, place: Path) -> bytes:
    fs, path = filesystem(uri)
    return fs.cat_file(path)


def get(uri: str, place: Path) -> bytes:
    """In three parts."""
    fs, path = filesystem(uri)
    fs.get_file(path, str(place))
    return place.read_bytes()


def opened(uri: str, place: Path) -> bytes:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        return file.read()


def ranged(uri: str, place: Path) -> bytes:
    fs, path = filesystem(uri)
    return b"".join(fs.cat_file(path, start=start, end=start + 5000) for start in range(0, len(DATA), 5000))


READS = [cat, get, opened, ranged]
PASSING = ["500", "503", "404", "reset", "short", "flip", "stall"]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again_and_the_bytes_are_right(
    endpoint: S3Endpoint, uri: str, tmp_path: Path, read: Callable[[str, Path], bytes], kind: str
) -> None:
    endpoint.stall_seconds = 1.0
    endpoint.faults.append(Fault(kind, "set/a.bin", times=2 if kind != "stall" else 1))
    assert read(uri, tmp_path / "copy") == DATA
    assert endpoint.faults[0].times == 0


@pytest.mark.parametrize("kind", PASSING[:-1])
@pytest.mark.parametrize("read", [cat, get, opened])
def test_what_does_not_pass_is_one_line_with_the_uri_after_a_bounded_number_of_attempts(
    endpoint: S3Endpoint, uri: str, tmp_path: Path, read: Callable[[str, Path], bytes], kind: str
) -> None:
    endpoint.faults.append(Fault(kind, "set/a.bin", times=10**6))
    with pytest.raises(UserError) as error:
        read(uri, tmp_path / "copy")
    assert uri in str(error.value) and endpoint.url in str(error.value) and "\n" not in str(error.value)
    assert len(endpoint.requests()) <= 4 * 4 and not (tmp_path / "copy").exists()
    if read is not get:  # which may fail in one of its parts
        assert "given up after 4 attempts" in str(error.value) and len(endpoint.requests()) == 4


def test_ranges_that_are_flipped_are_not_taken_for_the_file(endpoint: S3Endpoint, uri: str, tmp_path: Path) -> None:
    """A store keeps no sum of a range: the file in parts is compared as a whole, and left behind by nobody."""
    endpoint.faults.append(Fault("flip", "set/a.bin", times=10**6, ranged=True))
    with pytest.raises(StorageError, match=r"set/a\.bin: arrived damaged 3 times: ChecksumCRC32 is"):
        get(uri, tmp_path / "copy")
    assert not list(tmp_path.iterdir())


def test_a_large_object_is_read_in_ranges_on_which_two_answers_agree(
    endpoint: S3Endpoint, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_client, "WHOLE_BYTES", 1000)
    endpoint.faults += [Fault("short", "set/a.bin", ranged=True), Fault("flip", "set/a.bin", ranged=True)]
    assert opened(uri, tmp_path) == ranged(uri, tmp_path) == DATA
    assert {fault.times for fault in endpoint.faults} == {0}
    endpoint.faults.append(Fault("flip", "set/a.bin", times=10**6, ranged=True))  # always the first byte of an answer
    fs, path = filesystem(uri)
    with pytest.raises(StorageError, match="no two answers to bytes 4096 to 8192 agree"):
        fs.cat_file(path, start=4096, end=8192)


def test_a_store_that_never_answers_is_given_up_in_time_with_a_word_on_the_way(
    endpoint: S3Endpoint, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_client, "LIMITS", Limits(total_seconds=1.5, read_seconds=0.3, first_pause=0.01))
    endpoint.stall_seconds = 1.5
    endpoint.faults.append(Fault("stall", "set/a.bin", times=10**6))
    with pytest.raises(StorageError, match=r"no answer from http.*ReadTimeout.*given up after \d attempts in \d s"):
        cat(uri, Path())
    assert 2 <= len(endpoint.requests()) <= 6
    assert f"{uri}: no answer from" in caplog.text and "; trying again for up to " in caplog.text


def test_the_limits_that_people_get() -> None:
    """What the docs say: silence is given up after two minutes; a start asks for a quarter of a minute."""
    limits = Limits()
    assert limits.total_seconds + limits.read_seconds <= 150 and storage_client.PROBE.total_seconds <= 15


@pytest.mark.parametrize("method", ["GET", "PUT", "LIST"])
def test_expired_credentials_are_one_line_at_once(endpoint: S3Endpoint, uri: str, method: str) -> None:
    fs, path = filesystem(uri)
    endpoint.faults.append(Fault("expired", "set/a.bin", times=10**6, method=method))
    calls = {"GET": fs.cat_file, "PUT": lambda path: fs.pipe_file(path, b"new"), "LIST": lambda path: fs.find(path)}
    with pytest.raises(StorageError, match="the session token has expired; renew the credentials") as error:
        calls[method](path)
    assert error.value.errno == errno.EACCES and uri.rpartition("/")[0] in str(error.value)
    assert endpoint.faults[0].times == 10**6 - 1


def test_a_key_that_is_neither_there_nor_listed_is_missing(uri: str) -> None:
    fs, path = filesystem(uri)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{path}.not")
    assert not fs.exists(f"{path}.not") and fs.exists(path)


@pytest.mark.parametrize("kind", ["500", "503", "reset", "lost_answer", "stall"])
def test_what_is_written_arrives_once_whatever_happens_on_the_way(endpoint: S3Endpoint, uri: str, kind: str) -> None:
    """An exclusive PUT whose answer is lost finds its own object in the way."""
    endpoint.stall_seconds = 1.0
    fs, path = filesystem(f"{uri}.new")
    endpoint.faults.append(Fault(kind, "set/a.bin.new", method="PUT"))
    fs.pipe_file(path, b"mine", mode="create")
    assert fs.cat_file(path) == b"mine"
    with pytest.raises(FileExistsError):
        fs.pipe_file(path, b"another's", mode="create")


def test_a_row_whose_picture_the_store_does_not_give_is_no_bad_row(endpoint: S3Endpoint, uri: str) -> None:
    """One 404 for a listed key is passed over; a lasting one is an outage. What is not listed is the row's fault."""
    root = MediaRoot(uri.rpartition("/")[0])
    endpoint.faults.append(Fault("404", "set/a.bin"))
    assert root.read("a.bin") == DATA
    endpoint.faults[0].times = 10**6
    with pytest.raises(StorageError, match=r"is listed, but http.* answers 404"):
        root.read("a.bin")
    with pytest.raises(StorageError), root.file("a.bin"):
        pass
    with pytest.raises(MissingMedia, match=r"b\.bin: no such file"):
        root.read("b.bin")


@pytest.fixture
def stored(endpoint: S3Endpoint, tmp_path: Path) -> tuple[ArtifactStore, Artifact]:
    store = ArtifactStore(f"s3://{endpoint.bucket()}/runs", tmp_path / "cache")
    with store.create(KEY) as out, out.open("train/a.bin") as file:
        file.write(DATA)
    artifact = store.find(KEY)
    assert artifact is not None
    return store, artifact


def test_a_shard_that_stays_damaged_is_not_kept(
    endpoint: S3Endpoint, stored: tuple[ArtifactStore, Artifact], tmp_path: Path
) -> None:
    artifact = stored[1]
    files = ShardFiles(artifact, tmp_path / "shards", 1 << 20)
    key = f"{artifact.uri.split('/', 3)[3]}/train/a.bin"
    endpoint.client().put_object(
        Bucket=artifact.uri.split("/")[2], Key=key, Body=DATA[::-1]
    )  # as long, and a good object
    with pytest.raises(UserError, match=r"train/a\.bin holds other bytes than were recorded"):
        files.open("train/a.bin")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["locks"]


def test_a_stale_listing_loses_no_artifact(endpoint: S3Endpoint, stored: tuple[ArtifactStore, Artifact]) -> None:
    store, artifact = stored
    key = f"{artifact.uri.split('/', 3)[3]}/train/a.bin"
    endpoint.faults.append(Fault("stale", key, times=10**6, method="LIST"))
    found = store.find(KEY)
    assert found is not None and found.uri == artifact.uri
    assert found.open("train/a.bin").read() == DATA


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StorageError(errno.EIO, "s3://b/k: no answer")))
    assert str(error) == "s3://b/k: no answer" and error.errno == errno.EIO


def test_a_client_keeps_its_limits_when_it_travels(uri: str) -> None:
    fs, path = filesystem(uri)
    again = pickle.loads(pickle.dumps(fs))
    assert again.limits == storage_client.LIMITS and again.cat_file(path) == DATA


def test_an_answer_is_given_up_in_bounded_time_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage_client.StorageClient.clear_instance_cache()
    started = time.monotonic()
    with pytest.raises(UserError, match=r"s3://bucket/runs: cannot be written.*no answer from http://127\.0\.0\.1:9"):
        ArtifactStore("s3://bucket/runs", tmp_path).check()
    assert time.monotonic() - started < storage_client.PROBE.total_seconds + storage_client.PROBE.read_seconds
    storage_client.StorageClient.clear_instance_cache()
