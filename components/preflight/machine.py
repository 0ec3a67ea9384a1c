"""Whether this machine, and the Ray that is named, can do what the config asks."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from components.pipeline.config import PipelineConfig
from components.preflight.finding import Finding
from components.processes.machine import visible_gpus
from components.tracking.runs import tracking_uri

SOCKET_BYTES = 107  # of a Unix socket's path, on Linux
RAYS_PART = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
ON_RAY = ("preprocess", "train")
ANSWER_SECONDS = 2.0


def room_for_sockets(config: PipelineConfig) -> Iterator[Finding]:
    """Ray keeps sockets below RAY_TMPDIR or TMPDIR, and their paths have a limit."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name, "/tmp").rstrip("/")
    most = SOCKET_BYTES - len(RAYS_PART)
    if _own_ray(config) and len(os.fsencode(folder)) > most:
        text = (
            f"{name}={folder}: its {len(os.fsencode(folder))} characters leave no room for the names of Ray's sockets, "
            f"which begin with it; set RAY_TMPDIR to a folder of at most {most} characters"
        )
        yield from (Finding(text, step=step) for step in ON_RAY)


def named_ray(config: PipelineConfig) -> Iterator[Finding]:
    """RAY_ADDRESS and ray.address lead to something that answers, of the kind that each is for."""
    if config.ray.address:
        yield from (Finding(text, step=step) for text in _dashboard(config.ray.address) for step in ON_RAY)
    elif "RAY_ADDRESS" in os.environ:
        yield from (Finding(text, step=step) for text in _member(os.environ["RAY_ADDRESS"]) for step in ON_RAY)


def _dashboard(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"ray.address {address}: must be the address of Ray's dashboard, such as http://HOST:8265"
    elif not _answers(parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]):
        yield f"ray.address {address}: nothing answers there; start the cluster, or leave the key out for a local Ray"


def _member(address: str) -> Iterator[str]:
    way_out = "or unset it for a local Ray"
    if address == "auto":
        current = (
            Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
        )
        try:
            address = current.read_text().strip()
        except OSError:
            yield f"RAY_ADDRESS=auto: no Ray runs on this machine; start it with `ray start --head`, {way_out}"
            return
    if address == "local":
        return
    if "://" in address:
        yield (
            f"RAY_ADDRESS={address}: must be HOST:PORT of a cluster that this machine is in; put a dashboard's http://… into "
            f"the config as ray.address, {way_out}"
        )
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not _answers(host.strip("[]"), int(port)):
        yield f"RAY_ADDRESS={address}: nothing answers there; start the cluster, correct the address, {way_out}"


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS):
            return True
    except (OSError, OverflowError, UnicodeError):
        return False


def enough_gpus(config: PipelineConfig) -> Iterator[Finding]:
    """Each training worker has a GPU of its own, where the config asks for GPUs and the workers run here."""
    there = visible_gpus()
    wanted = config.train.min_workers or config.train.workers
    if config.train.use_gpu and _own_ray(config) and there is not None and there < wanted:
        yield Finding(
            f"train.use_gpu: {wanted} workers need a GPU each, this machine has {there or 'none'}; set train.workers, or "
            "train.use_gpu=false, or name a cluster as ray.address",
            step="train",
        )


def folders(config: PipelineConfig) -> Iterator[Finding]:
    """The local folders can be made and written."""
    for key, place in _places(config).items():
        if reason := not_writable(Path(place).absolute()):
            yield Finding(f"{key} {place}: cannot be written: {reason}; name another folder, or change its rights")


def _places(config: PipelineConfig) -> dict[str, str]:
    storage = config.storage
    roots = {"storage.root": storage.root, "storage.resume_root": storage.resume_root}
    local = {key: root.removeprefix("file://").removeprefix("local://") for key, root in roots.items() if root}
    named = {"tracking.state_dir": config.tracking.state_dir, "storage.cache_dir": storage.cache_dir}
    return {key: root for key, root in local.items() if "://" not in root} | named


def not_writable(folder: Path) -> str | None:
    """Why a folder cannot be made or written, or None; looks only."""
    for place in (folder, *folder.parents):
        try:
            if not place.exists():
                continue
        except OSError as error:  # a name that is too long, a part that may not be looked into
            return f"{place}: {error.strerror}"
        if not place.is_dir():
            return f"{place} is no folder"
        return None if os.access(place, os.W_OK | os.X_OK) else f"{place} is read-only for this user"
    return None


def plain_addresses(config: PipelineConfig) -> Iterator[Finding]:
    """`?` and `%20` in a folder's path mean something else in the addresses that SQLite and MLflow take."""
    folder = str(Path(config.tracking.state_dir).absolute())
    if tracking_uri(config.tracking).startswith("sqlite:") and re.search(r"\?|%[0-9A-Fa-f]{2}", folder):
        yield Finding(
            f"tracking.state_dir {folder}: `?` and `%` with two digits cannot be in the path of MLflow's database; "
            "name a folder without them"
        )


def _own_ray(config: PipelineConfig) -> bool:
    return config.ray.address is None and "RAY_ADDRESS" not in os.environ
