"""What a spool holds, sent to MLflow: in MLflow's batches, and one by one where the server refuses a batch."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.tracking.spool import SpoolFile

log = logging.getLogger(__name__)
POINTS_PER_CALL = 1000  # MLflow's limits
PARAMS_PER_CALL = 100
OLD_PARAM_LENGTH = 500  # what servers before MLflow 2.10 take
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


class RunRefused(Exception):
    """The server answers, and does not make the run: its experiment was deleted, say."""


def send(client: Any, file: SpoolFile) -> int:
    """Send what a spool holds and take it out; returns how many points it held. Raises what the client raises."""
    entries, lines = file.read()
    if not lines:
        return 0
    if "create" in file.header:
        file.name_run(made(client, file.header["create"]))
    run_id = file.header["run"]
    points = [entry for entry in entries if isinstance(entry, list)]
    for i in range(0, len(points), POINTS_PER_CALL):
        send_points(client, run_id, points[i : i + POINTS_PER_CALL])
    for entry in entries:
        if isinstance(entry, dict):
            with accepted(f"{run_id}: {next(iter(entry))}"):
                send_other(client, run_id, entry, file)
    file.drop(lines)
    if any(isinstance(entry, dict) and "file" in entry for entry in entries):
        shutil.rmtree(file.files, ignore_errors=True)
    return len(points)


def made(client: Any, create: Mapping[str, Any]) -> str:
    """Make the run of a spool; its id. Raises RunRefused where the server says that it cannot be."""
    try:
        run_id: str = client.create_run(**create).info.run_id
        return run_id
    except Exception as error:
        if not refused(error):
            raise
        raise RunRefused(one_line(error)) from error


def send_points(client: Any, run_id: str, points: Sequence[Sequence[Any]]) -> None:
    """Send metric points in one call; one by one where the server refuses some, which are named and left out."""
    from mlflow.entities import Metric

    try:
        client.log_batch(run_id, metrics=[Metric(*point) for point in points])
    except Exception as error:
        if not refused(error):
            raise
        if len(points) == 1:
            log.warning("tracking: %s refused: %s", points[0], one_line(error))
            return
        for point in points:
            send_points(client, run_id, [point])


def send_params(client: Any, run_id: str, params: Sequence[Any]) -> None:
    """Send parameters in one call; one by one where the server refuses some.

    One that is too long for an older server is cut to what that takes; what is refused then is named and left out.
    """
    from mlflow.entities import Param

    try:
        client.log_batch(run_id, params=params)
    except Exception as error:
        if not refused(error):
            raise
        if len(params) > 1:
            for param in params:
                send_params(client, run_id, [param])
        elif len(params[0].value) > OLD_PARAM_LENGTH:
            send_params(client, run_id, [Param(params[0].key, params[0].value[:OLD_PARAM_LENGTH])])
        else:
            log.warning("tracking: parameter %s refused: %s", params[0].key, one_line(error))


def send_other(client: Any, run_id: str, entry: Mapping[str, Any], file: SpoolFile) -> None:
    """Send an entry that is not a point."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    ((kind, value),) = entry.items()
    if kind == "tag":
        client.set_tag(run_id, *value)
    elif kind == "params":
        rows = [Param(key, text) for key, text in value.items()]
        for i in range(0, len(rows), PARAMS_PER_CALL):
            send_params(client, run_id, rows[i : i + PARAMS_PER_CALL])
    elif kind == "dataset":
        tags = [InputTag("mlflow.data.context", value["context"])]
        client.log_inputs(run_id, datasets=[DatasetInput(dataset=Dataset(**value["dataset"]), tags=tags)])
    elif kind == "file":
        copy, folder = value
        if (file.files / copy).exists():
            client.log_artifact(run_id, str(file.files / copy), folder)
    elif kind == "status":
        client.set_terminated(run_id, value["name"], end_time=value["at"])


@contextlib.contextmanager
def accepted(what: str) -> Iterator[None]:
    """Go on, and say so, where the server answered and said no: sending the same again would not help."""
    try:
        yield
    except Exception as error:
        if not refused(error):
            raise
        log.warning("tracking: %s refused: %s", what, one_line(error))


def refused(error: Exception) -> bool:
    """Whether the server answered, and said no: then it is there, and only this one call was wrong."""
    return getattr(error, "error_code", "") in REFUSALS


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
