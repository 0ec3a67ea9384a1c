"""What a config draws on: files around it and storages. What is out of reach is neither opened nor shown."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import ConfigError
from components.pipeline.config_loading import load_config
from components.pipeline.config_overrides import config_of
from components.reach import reach_of_parameters

pytestmark = pytest.mark.case("R16")
SECRET = "root:*:19000:0:99999:7:::\n"


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is not the config's business; YAML reads its lines as keys."""
    path = tmp_path_factory.mktemp("outside") / "shadow"
    path.write_text(SECRET)
    return path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that must not be spoken to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def refusal(path: str, *overrides: str, parameters: bool = False) -> str:
    with pytest.raises(ConfigError) as error:
        config_of(path, list(overrides), reach_of_parameters() if parameters else None)
    text = str(error.value)
    assert "\n" not in text and "19000" not in text and "secret" not in text, text
    return text


@pytest.mark.parametrize("how", ["absolute", "up", "file://", "section", "override", "link"])
def test_a_file_elsewhere_is_not_read(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(outside.parent)
    up = f"../{outside.parent.name}/shadow"
    named = {"up": up, "file://": f"file://{outside}", "link": f"link/../{outside.parent.name}/shadow"}.get(
        how, str(outside)
    )
    mine = write(tmp_path / "mine.yaml", f"train: {{extends: {named}}}" if how == "section" else f"extends: {named}")
    if how == "override":
        text = refusal(write(tmp_path / "other.yaml", "name: a"), f"train={{extends: {outside}}}")
    else:
        text = refusal(mine)
    assert f"lies outside of {tmp_path}" in text and "copy it there" in text


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP", "ssh", "sftp", "ftp", "github", "simplecache::http"])
@pytest.mark.parametrize("whole", [True, False])
def test_an_address_is_not_opened(tmp_path: Path, listener: socket.socket, scheme: str, whole: bool) -> None:
    address = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/c.yaml"
    text = refusal(address if whole else write(tmp_path / "mine.yaml", f"extends: {address}"))
    assert "is not read for a config" in text
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_what_people_extend_is_read(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the file, above it within the working folder or the checkout, through a link, and what is shipped."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    elsewhere = tmp_path / "project"
    write(elsewhere / "base.yaml", "name: base")
    below = write(elsewhere / "runs" / "mine.yaml", "extends: ../base.yaml")
    beside = write(elsewhere / "runs" / "beside.yaml", "extends: mine.yaml")
    assert load_config(write(elsewhere / "top.yaml", "extends: base.yaml")).name == "base"
    assert "lies outside" in refusal(below)
    (elsewhere / ".git").mkdir()
    assert load_config(below).name == load_config(beside).name == "base"
    (tmp_path / "data/configs").symlink_to(repository / "configs")
    assert load_config(write(tmp_path / "data/mine.yaml", "extends: configs/smoke.yaml")).name == "smoke"
    shipped = f"extends: {repository / 'configs' / 'smoke.yaml'}"
    assert load_config(write(tmp_path / "data/shipped.yaml", shipped)).name == "smoke"


def test_a_storage_of_the_configs_own_may_hold_what_it_extends(tmp_path: Path) -> None:
    """gs:// is read where the artifacts are there too; that it is not there is another message."""
    elsewhere = "extends: gs://bucket/base.yaml\n"
    assert "is not read for a config" in refusal(write(tmp_path / "a.yaml", elsewhere))
    told = refusal(write(tmp_path / "b.yaml", f"{elsewhere}storage: {{root: 'gs://bucket/runs'}}"))
    assert "is not read for a config" not in told and "gs://bucket/base.yaml" in told
    http = refusal(
        write(tmp_path / "c.yaml", "extends: http://127.0.0.1:9/c.yaml\nstorage: {root: 'http://127.0.0.1:9'}")
    )
    assert "is not read for a config" in http


@pytest.mark.parametrize("value", ["{catalogue: SHADOW, kind: catalogue, datasets: [a]}", "{kind: folder, path: a}"])
def test_parameters_of_a_flow_run_reach_the_workers_folder_only(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", "name: mine")
    assert config_of("mine.yaml", [], reach_of_parameters()).name == "mine"
    assert "lies outside" in refusal(str(outside), parameters=True)
    override = f"ingest.source={value.replace('SHADOW', str(outside))}"
    if "catalogue" in value:
        assert "lies outside" in refusal("mine.yaml", override, parameters=True)
    else:
        assert config_of("mine.yaml", [override], reach_of_parameters()).ingest.source.path == "a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: *secretalias\n", ":2: not valid YAML: found undefined alias '…'"),
        ("a: !!python/object:os.secret x", ":1: not valid YAML: could not determine a constructor for the tag '…'"),
        ("a: 1\n\tsecret: x: y", ":2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: [1, secret", ":1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("secret: \x00", ": not valid YAML: a character that YAML does not have, at position 8"),
        ("a: 2024-13-45 # secret", ": not valid YAML: a date, or a value that its tag does not fit"),
        ("a: !!int secret", ": not valid YAML: a date, or a value that its tag does not fit"),
        ("[" * 1000, ": not valid YAML: it is nested too deeply"),
        ("secret words", ": must hold a mapping of keys, not str"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_without_its_words(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "c.yaml", text)
    assert refusal(path) == f"{path}{problem}"
