"""Start the evaluation's process, pass its progress on, and leave nothing of it behind whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluate.harness.process import MODULE
from components.evaluate.harness.request import Request
from components.evaluate.judge.beside import Beside

LOG_LINES = 5


def run_process(
    request: Request, cache_dir: Path, log: Path, progress: Callable[[str], None], judge: Beside | None = None
) -> dict[str, Any]:
    """Run the request and return its result. Raises UserError with the reason and where the log lies."""
    path = Path(request.scratch) / "request.json"
    request.write(path)
    log.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(request.data or request.scratch)
    beside = judge or Beside()
    environment = {**environment_of(cache_dir, request, beside.hidden), **beside.environment}
    with open(log, "wb") as sink, own_group(path, folder, environment, sink) as child:
        for line in child.stdout or ():
            progress(line.strip())
        status = child.wait()
    return read_result(Path(request.result), status, log)


@contextlib.contextmanager
def own_group(request: Path, folder: Path, environment: Mapping[str, str], log: Any) -> Iterator[subprocess.Popen[str]]:
    """The process in a group of its own; when the block ends early, by Ctrl-C too, the whole group is killed."""
    # -P: no module that lies in the working folder takes a library's place.
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE, str(request)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        env=dict(environment),
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout:
            child.stdout.close()


def environment_of(cache_dir: Path, request: Request, hidden: str | None = None) -> dict[str, str]:
    """This process's environment for the evaluation's.

    Held-out rows need nothing of the network, and their caches lie below `cache_dir` or the request's scratch. Benchmarks look
    for their data where HF_HOME says, and fetch what is missing unless the request is offline. `hidden` is the variable of a
    key that the process is not to know.
    """
    left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", hidden)
    inherited = {key: value for key, value in os.environ.items() if key not in left_out}
    root = Path(__file__).resolve().parents[3]  # where a Ray job runs, the code is not always installed
    scratch = Path(request.scratch)
    places = {"HF_HOME": str(cache_dir / "huggingface"), "HF_DATASETS_CACHE": str(scratch / "datasets")}
    offline = dict.fromkeys(
        ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"
    )
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), inherited.get("PYTHONPATH")])),
        **({} if request.columns else {**places, "LMMS_EVAL_DATASETS_CACHE": places["HF_DATASETS_CACHE"]}),
        **(offline if request.offline or not request.columns else {}),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "DO_NOT_TRACK": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONUNBUFFERED": "1",
    }


def read_result(path: Path, status: int, log: Path) -> dict[str, Any]:
    """The result file of a process that ended with `status`. Raises UserError when it holds none."""
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if status == 0 and "answers" in result:
        return result
    why = result.get("error") or death(status, log)
    raise UserError(f"the evaluation failed: {why} (whole log: {log})")


def death(status: int, log: Path) -> str:
    """What can be said of a process that left no reason: the signal that ended it, or the last lines of its log."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"its process was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit status {status}; it said last: {' | '.join(lines[-LOG_LINES:]) or 'nothing'}"
