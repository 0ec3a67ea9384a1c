"""One process at a time makes what a step's key names: two trainings of one key would write into the same resume folder.

On a local storage root this is a file lock, which the kernel drops with its process. An object store has no locks: there it
is a lease, an object that its owner renews. Whoever waits takes a lease over when its process of this machine is dead, or
when it was not renewed for STALE_SECONDS. That is no proof that its owner is dead: one that is cut off from the store for so
long, and then goes on, says that it lost its lease.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from components.artifacts.files import filesystem
from components.processes.identity import identity, is_alive

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
RENEW_SECONDS = 20.0
STALE_SECONDS = 90.0
SETTLE_SECONDS = 2.0  # until two that take over the same lease have both written, and the last one stands


def sole(uri: str, say: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
    """Hold the key that `uri` names while the block runs; waits for another holder, and says so."""
    fs, path = filesystem(uri)
    return _file_lock(f"{path}.lock", say) if isinstance(fs, LocalFileSystem) else _lease(fs, f"{path}.lease", say)


def _waiting_for(owner: Mapping[str, Any]) -> str:
    return f"another run makes the same ({owner.get('name') or 'elsewhere'}); waiting for it"


def _owner() -> dict[str, Any]:
    """What names this process: to people, and to other processes of this machine."""
    name = f"process {os.getpid()} on {socket.gethostname()}"
    return {"name": name, "machine": this_machine(), **identity(), "id": uuid.uuid4().hex}


def this_machine() -> str:
    """Names the processes that are seen from here: containers may share a host name, and a host name outlives a boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')} {boot}"
    except OSError:
        return socket.gethostname()


@contextlib.contextmanager
def _file_lock(path: str, say: Callable[[str], None]) -> Iterator[None]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with _locked_file(path, say) as file:
        file.write(json.dumps(_owner()))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _locked_file(path: str, say: Callable[[str], None]) -> IO[str]:
    """The open lock file; the lock ends when it is closed."""
    while True:
        file = open(path, "a+")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(_waiting_for(_parsed(file.read())))
            file.close()
            time.sleep(POLL_SECONDS)
            continue
        except OSError as error:
            log.warning("%s: this file system has no locks (%s); start a pipeline only once on it", path, error)
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                file.truncate(0)
                return file
        file.close()  # its holder removed it meanwhile


@contextlib.contextmanager
def _lease(fs: Any, path: str, say: Callable[[str], None]) -> Iterator[None]:
    mine = _owner()
    _take(fs, path, mine, say)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(fs, path, mine, ended), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join(RENEW_SECONDS)
        with contextlib.suppress(Exception):  # what is left behind is taken over
            if _read(fs, path).get("id") == mine["id"]:
                fs.rm_file(path)


def _take(fs: Any, path: str, mine: Mapping[str, Any], say: Callable[[str], None]) -> None:
    seen: Mapping[str, Any] = {}
    since = time.monotonic()
    while True:
        with contextlib.suppress(FileExistsError):
            fs.pipe_file(path, json.dumps(mine).encode(), mode="create")
            return
        current = _read(fs, path)
        if current != seen:
            seen, since = current, time.monotonic()
        if current and (_dead(current) or time.monotonic() - since > STALE_SECONDS):
            fs.pipe_file(path, json.dumps(mine).encode())
            time.sleep(SETTLE_SECONDS)
            if _read(fs, path) == mine:
                return
            continue
        if current:
            say(_waiting_for(current))
        time.sleep(POLL_SECONDS)


def _renew(fs: Any, path: str, mine: Mapping[str, Any], ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            current = _read(fs, path)
            if current and current.get("id") != mine["id"]:
                log.warning("%s: lost to %s, which took this process for dead", path, current.get("name"))
                return
            fs.pipe_file(path, json.dumps({**mine, "renewed": time.time()}).encode())
        except Exception as error:  # of a store that is away for now
            log.info("%s: not renewed: %s", path, error)


def _dead(owner: Mapping[str, Any]) -> bool:
    """Whether the owner was a process of this machine that is no more."""
    if owner.get("machine") != this_machine():
        return False
    return not is_alive(owner)


def _read(fs: Any, path: str) -> dict[str, Any]:
    try:
        return _parsed(fs.cat_file(path))
    except FileNotFoundError:
        return {}


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
        return found
    except ValueError:
        return {"name": ""}
