"""The `plm` command: quick help, one readable line for what is wrong, truthful exit status."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main, step_commands

PLM = str(Path(sys.executable).parent / "plm")


def plm(*arguments: str, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PLM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("command", ["", "finetune", "ui", *step_commands()])
def test_help_takes_under_a_second_of_cpu(command: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = plm(*filter(None, [command]), "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.returncode == 0 and "usage: plm" in ran.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def one_error(*arguments: str, **options: object) -> str:
    ran = plm(*arguments, **options)  # type: ignore[arg-type]
    assert ran.returncode == 2, ran.stdout + ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in ran.stderr
    return line


@pytest.mark.parametrize("command", ["finetune", "ingest"])
def test_an_unknown_key_is_one_line(command: str) -> None:
    assert "did you mean train.lr?" in one_error(command, "configs/smoke.yaml", "train.lrr=1")


def test_an_unknown_step_to_refresh_is_one_line() -> None:
    assert "no such step" in one_error("finetune", "configs/smoke.yaml", "--refresh", "trian", "--explain")


def test_a_step_whose_input_is_missing_names_the_command_that_makes_it(tmp_path: Path) -> None:
    line = one_error("convert", "configs/smoke.yaml", f"storage.root={tmp_path}")
    assert "run `plm ingest` with this config" in line


def test_tracking_that_is_away_is_one_line_within_ten_seconds(tmp_path: Path) -> None:
    overrides = (f"storage.root={tmp_path}", f"tracking.state_dir={tmp_path}", "tracking.uri=http://127.0.0.1:9")
    script = "import sys, time; from flows.commands.finetune import _check_tracking;"
    script += "from components.pipeline.config_loading import load_config;"
    script += "config = load_config('configs/smoke.yaml', sys.argv[1:]); import components.tracking.runs, mlflow;"
    script += (
        "start = time.monotonic()\ntry: _check_tracking(config)\nexcept Exception as e: print(time.monotonic() - start)"
    )
    seconds = float(subprocess.check_output([sys.executable, "-c", script, *overrides], text=True))
    assert seconds < 10
    line = one_error("finetune", "configs/smoke.yaml", *overrides)
    assert "tracking http://127.0.0.1:9: cannot be reached" in line and "tracking.required=false" in line


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_error("ingest", "configs/smoke.yaml", f"storage.root={tmp_path}/file/runs")
    assert "storage.root" in line and "cannot be written" in line


def test_a_full_disk_is_one_line_and_keeps_nothing_half_written(tmp_path: Path) -> None:
    """A file size limit stands in for the full disk: the write fails in the middle of a file either way."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
        "from flows.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    overrides = [f"storage.root={tmp_path}", f"tracking.state_dir={tmp_path}/state", "tracking.required=false"]
    command = [sys.executable, "-c", script, "base", "configs/smoke.yaml", *overrides]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 2 and "no space left" in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
    assert not list((tmp_path / "artifacts").rglob("manifest.json"))


@pytest.mark.parametrize("command", [[PLM], [sys.executable, "-m", "flows.cli"]], ids=["console script", "-m"])
def test_both_ways_of_calling_it_end_alike(command: list[str]) -> None:
    wrong = subprocess.run([*command, "ingest", "configs/smoke.yaml", "train.lrr=1"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: override: train.lrr: unknown key; did you mean train.lr?\n"


def test_a_fault_of_ours_is_one_line_and_its_traceback_a_file_below_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault is planted; everything around it is real."""

    def broken(*arguments: object) -> None:
        raise AttributeError("planted")

    for name in ("PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL"):  # a command would set them for its process
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("components.ingest.step.run", broken)
    state = tmp_path / "state"
    overrides = [f"storage.root={tmp_path}/runs", f"tracking.state_dir={state}", "tracking.uri=http://127.0.0.1:9"]
    assert main(["ingest", "configs/smoke.yaml", *overrides, "tracking.required=false"]) == 70
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    (file,) = (state / "logs").glob("fault-*.log")
    assert line.startswith("error: this is a fault of plm, not of your input (AttributeError: planted)")
    assert line.endswith(str(file)) and "in broken" in file.read_text()


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    """As in `plm finetune CONFIG --explain | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    overrides = [f"storage.root={tmp_path}", f"tracking.state_dir={tmp_path}"]
    command = [PLM, "finetune", "configs/smoke.yaml", "--explain", *overrides]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert ran.returncode == 141 and ran.stderr == ""


@pytest.mark.case("E18")
def test_the_version_names_the_code() -> None:
    ran = plm("--version")
    assert ran.returncode == 0 and re.fullmatch(r"plm \d+\.\d+\.\d+( \(commit [0-9a-f]{12}\))?\n", ran.stdout)


@pytest.mark.case("E18")
def test_the_third_stage_on_a_clean_clone_names_the_commands_that_make_what_is_missing(
    tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "configs").symlink_to(repository / "configs")
    ran = plm("finetune", "configs/stage_3/plm_1b.yaml", "--explain", cwd=tmp_path)
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert ran.returncode == 2 and len(errors) == 3, ran.stderr
    assert any("`python configs/dummy_datasets.py --to runs/dummy_datasets` makes it" in line for line in errors)
    assert any("`plm finetune configs/stage_2/plm_1b.yaml` makes it" in line for line in errors)
    assert any("256 workers need a GPU each" in line for line in errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs"]


WAITING = """
import sys, time
from flows import cli
def wait(arguments):
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)
cli._ui = wait
sys.exit(cli.main(["ui"]))
"""


@pytest.mark.case("R18")
@pytest.mark.parametrize(("ignored", "status"), [(False, 130), (True, -signal.SIGKILL)])
def test_a_closed_terminal_ends_as_sigterm_does_but_not_what_nohup_started(ignored: bool, status: int) -> None:
    how = signal.SIG_IGN if ignored else signal.SIG_DFL
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, how) and None,
    )
    assert child.stdout is not None and child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGHUP)
    if ignored:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.kill()
    out, error = child.communicate(timeout=60)
    assert child.returncode == status
    assert (out, "stopped; run the same command again" in error) == (("", False) if ignored else ("closed\n", True))
