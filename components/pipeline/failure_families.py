"""What others' errors mean to a person: families told apart by the names of their classes, so that none of them is imported.

The first family that fits counts, so what is nearest to the cause stands first: an S3 error that fsspec has turned into an
OSError is told as S3's.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 300  # characters of another's message
GO_ON = "run the same command again: finished work is reused"


@dataclass(frozen=True)
class Family:
    """Classes whose dotted name begins with one of `names`, and what to say: what happened, then the cure.

    `plain_from` are modules that raise a bare RuntimeError or Exception for what is no fault of their caller.
    """

    names: tuple[str, ...]
    tell: Callable[[BaseException], str]
    plain_from: tuple[str, ...] = ()

    def has(self, error: BaseException) -> bool:
        if type(error) in (RuntimeError, Exception) and self.plain_from:
            return raised_in(error).startswith(self.plain_from)
        dotted = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        return any(name.startswith(self.names) for name in dotted)


def raised_in(error: BaseException) -> str:
    """Name of the module whose line raised the error; empty where it was not raised here."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""


def message(error: BaseException) -> str:
    """The error's own words, as one line that is not too long; its class where it has none."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__


def said(what: str, cure: str) -> Callable[[BaseException], str]:
    """`what: the error's words; cure`."""
    return lambda error: f"{what}: {message(error)}; {cure}"


# What S3 answers -> the cure.
S3_CURES: Mapping[str, str] = {
    "NoSuchBucket": "make the bucket, or correct its name",
    "AccessDenied": "give these credentials the right to read, write, list and delete there",
    "403": "give these credentials the right to read, write, list and delete there",
    "ExpiredToken": "the credentials have expired: renew them",
    "InvalidAccessKeyId": "the credentials are not known there: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY anew",
    "SignatureDoesNotMatch": "the secret does not fit the key: set AWS_SECRET_ACCESS_KEY anew",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SlowDown": f"the store is busy; {GO_ON}",
}


def tell_s3_answer(error: Any) -> str:
    """A refusal by the store, with its code."""
    answer = error.response.get("Error", {})
    cure = S3_CURES.get(str(answer.get("Code")), f"when the store is well again, {GO_ON}")
    place = "/".join(str(answer[name]) for name in ("BucketName", "Key") if name in answer)
    return f"S3 refused{f' s3://{place}' if place else ''}: {message(error)}; {cure}"


def tell_http(error: Any) -> str:
    """A server that was not reached, by its address where the error has one."""
    try:
        request = getattr(error, "request", None)  # httpx raises where there is none
    except RuntimeError:
        request = None
    url = getattr(request, "url", None) or "a server"
    return f"{url} cannot be reached: {message(error)}; start it, or correct its address; {GO_ON}"


def tell_mlflow(error: BaseException) -> str:
    if "currently in use" in str(error) or "database is locked" in str(error):
        return f"MLflow's database is busy: {message(error)}; {GO_ON}"
    return f"MLflow: {message(error)}; see that the server of tracking.uri is well, then {GO_ON}"


def tell_database(error: BaseException) -> str:
    """A database below MLflow or Prefect, without its SQL."""
    reason = message(getattr(error, "orig", None) or error)
    text = reason.lower()
    if "malformed" in text or "not a database" in text:
        cure = "move the damaged .db file in tracking.state_dir away and start again; runs recorded in it are lost"
    elif "locked" in text:
        cure = f"another process writes to it; {GO_ON}"
    elif "full" in text:
        cure = f"free some space; {GO_ON}"
    elif "readonly" in text or "unable to open" in text:
        cure = "make tracking.state_dir writable, or name another folder"
    else:
        cure = "see that the database of tracking.state_dir or tracking.uri is well"
    return f"the tracking database cannot be used: {reason}; {cure}"


OS_CURES: Mapping[int, str] = {
    errno.ENOSPC: "no space is left there: free some, or change storage.root",
    errno.EDQUOT: "your quota is used up there: free some space, or change storage.root",
    errno.EFBIG: "a file may not be as large there: change storage.root, or raise the limit (ulimit -f)",
    errno.EACCES: "this user may not do that there: change the rights, or name another place",
    errno.EPERM: "this user may not do that there: change the rights, or name another place",
    errno.EROFS: "it is read-only: name another place",
    errno.ENOENT: "it is not there (any more): bring it back, or correct its name",
    errno.ENOTDIR: "a part of its path is a file: correct the path",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENAMETOOLONG: "the name is too long for this disk: shorten it",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 65536)",
    errno.ENFILE: "too many files are open on this machine: raise the limit (ulimit -n 65536)",
    errno.EADDRINUSE: "the port is taken: name another one, or end what uses it",
    errno.EIO: "the disk reports an error: look at the machine's log (dmesg)",
    errno.ESTALE: f"the network disk was away; {GO_ON}",
    errno.ENOMEM: "no memory is left: free some, or ask for less at once",
}


def tell_os(error: Any) -> str:
    """What the operating system refused, at which file."""
    if isinstance(error, ConnectionError | TimeoutError):
        return f"a connection failed: {message(error)}; start what it leads to, then {GO_ON}"
    reason = error.strerror or message(error)
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    cure = OS_CURES.get(error.errno or 0, f"mend it, then {GO_ON}")
    return f"{where}{reason}; {cure}"


def tell_missing_package(error: Any) -> str:
    name = error.name or message(error)
    return f"the package {name} is not installed ({message(error)}); install again, with `pip install -c constraints.txt -e .`"


LESS_AT_ONCE = "lower train.pack_tokens or evaluate.batch_size, use train.recompute, or take a machine with more"
FAMILIES: tuple[Family, ...] = (
    Family(("ray.exceptions.OutOfMemoryError",), said("a Ray worker ran out of memory", LESS_AT_ONCE)),
    Family(
        ("ray.exceptions.OutOfDiskError", "ray.exceptions.ObjectStoreFullError"),
        said("Ray has no room for its objects", "free space in /tmp and /dev/shm, or lower preprocess.parallelism"),
    ),
    Family(("torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"), said("the GPU's memory is full", LESS_AT_ONCE)),
    Family(
        ("botocore.exceptions.NoCredentials", "botocore.exceptions.PartialCredentials"),
        said("no credentials for the bucket", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
    ),
    Family(("botocore.exceptions.ClientError",), tell_s3_answer),
    Family(
        ("botocore.exceptions.", "aiobotocore."),
        said("S3 cannot be reached", f"see AWS_ENDPOINT_URL and the network, then {GO_ON}"),
    ),
    Family(("mlflow.exceptions.",), tell_mlflow),
    Family(("sqlalchemy.exc.", "sqlite3."), tell_database),
    Family(
        ("prefect.exceptions.", "prefect.client."),
        said("Prefect", f"see that the server of PREFECT_API_URL is well, then {GO_ON}"),
        ("prefect.client.",),
    ),
    Family(("torch.distributed.Dist",), said("the training's workers lost each other", GO_ON)),
    Family(
        ("ray.exceptions.RuntimeEnv",),
        said("Ray cannot make the job's surroundings", "see ray.working_dir and the cluster's packages"),
    ),
    Family(
        ("ray.exceptions.", "ray.train."),
        said(
            "Ray failed or lost a process", f"look for lack of memory and for what its address leads to, then {GO_ON}"
        ),
        ("ray.dashboard.", "ray._private.", "ray._raylet", "ray.job_"),
    ),
    Family(("httpx.", "httpcore.", "requests.exceptions.", "urllib3.exceptions.", "aiohttp."), tell_http),
    Family(("builtins.OSError",), tell_os),
    Family(("builtins.MemoryError",), lambda error: f"no memory is left; {LESS_AT_ONCE}"),
)
OURS = ("components", "flows", "plm_model")
MISSING_PACKAGE = Family(("builtins.ModuleNotFoundError",), tell_missing_package)


def is_wrapper(error: BaseException) -> bool:
    """Whether an error only says where something went wrong: Ray's, of a task or of a training's workers."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "RayTaskError" in names or hasattr(error, "worker_failures") or hasattr(error, "controller_failure")


def family_of(error: BaseException) -> Family | None:
    """The family of one error; None for one that only a fault of ours raises."""
    if MISSING_PACKAGE.has(error):
        return MISSING_PACKAGE if str(getattr(error, "name", "")).split(".")[0] not in OURS else None
    return None if is_wrapper(error) else next((family for family in FAMILIES if family.has(error)), None)
