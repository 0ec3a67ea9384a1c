"""A Ray of our own: on loopback, watched while it is used, and gone with its files when it ends.

When Ray's gcs_server or raylet dies, Ray ends the whole driver process some time later, without a word of ours. So they are
watched, and their end is raised in the main thread, wherever it waits, as HelperEnded; a step turns it into its own error.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from components.errors import UserError
from components.processes.identity import identity, is_alive
from components.processes.ray_signals import groups_of_their_own, sigterm_as_before

log = logging.getLogger(__name__)
WATCHED = ("gcs_server", "raylet")
POLL_SECONDS = 0.3
OWNER = "plm.pid"  # in the folder of a session: whose it is
DEAF_SECONDS = 5.0  # until a main thread that does not hear is not waited for
STATUS = 2  # as for whatever is to be mended in the surroundings
_abandoned: list[Any] = []
before_sudden_end: list[Callable[[], None]] = []  # what tells the trackers


class HelperEnded(BaseException):
    """A process of the local Ray is no more; not an Exception, so that nobody on the way takes it for his own."""


@contextlib.contextmanager
def local_ray(num_cpus: int) -> Iterator[None]:
    """A Ray on loopback for the block. What it leaves on the disk goes after an end in order."""
    protect_token()
    remove_dead_sessions()
    start(num_cpus)
    protect_token()
    node = _node()
    session = Path(node.get_session_dir_path())
    with contextlib.suppress(OSError):
        (session / OWNER).write_text("{pid} {started}".format(**identity()))
    watch = Watch(node)
    try:
        with watch:
            yield
    finally:
        if watch.ended:
            abandon(node)
        else:
            _shutdown()
            shutil.rmtree(session, ignore_errors=True)


def start(num_cpus: int) -> None:
    """Start it; a second try where the first timed out, as it may on a busy machine."""
    import ray

    options: dict[str, Any] = {"include_dashboard": False, "dashboard_host": "127.0.0.1", "logging_level": "error"}
    for attempt in (1, 2):
        try:
            with sigterm_as_before(), groups_of_their_own():
                ray.init(address="local", num_cpus=num_cpus, log_to_driver=False, **options)
            return
        except Exception as error:  # Ray raises a bare Exception when its processes were too slow to start
            ray.shutdown()
            if attempt == 2 or "timed out during startup" not in str(error):
                raise


class Watch:
    """Looks at Ray's own processes while the block runs; `ended` names the first that died."""

    def __init__(self, node: Any) -> None:
        self._processes = {name: [entry.process for entry in node.all_processes.get(name, ())] for name in WATCHED}
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._previous: Any = None
        self._main = threading.current_thread() is threading.main_thread()
        self.ended: str | None = None
        self._heard = threading.Event()

    def __enter__(self) -> Watch:
        if self._main:  # only there can a signal raise
            self._previous = signal.signal(signal.SIGUSR1, self._raise)
            threading.Thread(target=self._look, name="ray watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._stop.set()
        if self._main:
            signal.signal(signal.SIGUSR1, self._previous)

    def _look(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            dead = next(
                (name for name, found in self._processes.items() if any(p.poll() is not None for p in found)), None
            )
            if dead:
                with self._guard:
                    if not self._stop.is_set():
                        self.ended = dead
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                if not self._heard.wait(DEAF_SECONDS) and not self._stop.is_set():
                    end_suddenly(str(self._error()))
                return

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        self._heard.set()
        raise self._error()

    def _error(self) -> HelperEnded:
        return HelperEnded(
            f"the local Ray ended by itself: its {self.ended} is gone (killed, or the machine is out of memory)"
        )


def end_suddenly(why: str) -> None:
    """End the process from a thread: the main one waits within Ray for what will not come, and hears no signal."""
    print(f"error: {why}; run the same command again: finished work is reused", file=sys.stderr, flush=True)
    for close in list(before_sudden_end):
        with contextlib.suppress(Exception):
            close()
    os._exit(STATUS)


@contextlib.contextmanager
def said_by(step: str) -> Iterator[None]:
    """Make the end of a local Ray in this block the error of a step."""
    try:
        yield
    except HelperEnded as error:
        raise UserError(f"{step}: {error}; run the same command again: finished work is reused") from None


def abandon(node: Any) -> None:
    """Leave a Ray that has lost a part: its processes are killed, and nobody talks to it any more, also not at the exit."""
    from ray._private import worker

    _abandoned.append(worker)
    atexit.unregister(worker.shutdown)
    children = psutil.Process().children(recursive=True)
    theirs = [child for child in children if _is_rays(child)]
    with contextlib.suppress(Exception):
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    for child in theirs:
        with contextlib.suppress(psutil.Error):
            child.kill()


def leave(status: int) -> int:
    """Return the status, or end the process with it at once where a Ray was abandoned.

    Ray's threads in this process would otherwise end it with a status of their own, or wait for what is gone.
    """
    if _abandoned:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    return status


def _is_rays(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())
        return "ray::" in command or "/ray/" in command
    return False


def protect_token() -> None:
    """Nobody else of this machine may read the token that lets one run code on this user's clusters: Ray makes it 0644."""
    token = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def remove_dead_sessions() -> None:
    """Remove the sessions of `plm` processes that are no more, but for the newest: its logs may say why."""
    root = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"
    dead = [owner.parent for owner in root.glob(f"session_*/{OWNER}") if not _lives(owner)]
    for session in sorted(dead, key=lambda path: path.name)[:-1]:
        shutil.rmtree(session, ignore_errors=True)


def _lives(owner: Path) -> bool:
    try:
        return is_alive(dict(zip(("pid", "started"), owner.read_text().split(), strict=False)))
    except OSError:
        return False


def _node() -> Any:
    from ray._private import worker

    return worker._global_node


def _shutdown() -> None:
    import ray

    ray.shutdown()
