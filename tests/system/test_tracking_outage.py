"""MLflow dies when the train step begins: the pipeline ends well, and the next start hands over what it had kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.tracking.runs import tracking_client
from components.tracking.settings import TrackingConfig
from tests.mlflow_server import Proxy
from tests.system.conftest import Workplace
from tests.system.test_interruptions import Running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def proxy(mlflow_server: int) -> Iterator[Proxy]:
    made = Proxy(mlflow_server)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("outage"), repository)


def test_an_outage_from_the_train_step_on_stops_nothing_and_loses_nothing(
    proxy: Proxy, mlflow_server: int, place: Workplace
) -> None:
    uri = f"tracking.uri=http://127.0.0.1:{proxy.port}"
    run = Running(place, uri)
    run.wait_to_say(" train ", "runs:")
    proxy.kill()
    run.finish(900)
    assert list((place.root / "state" / "spool").glob("*.jsonl"))
    proxy.serve()
    Running(place, uri).finish(600)
    assert not list((place.root / "state" / "spool").glob("*.jsonl"))
    direct = tracking_client(TrackingConfig(uri=f"http://127.0.0.1:{mlflow_server}"))
    experiment = direct.get_experiment_by_name("plm-pipeline").experiment_id
    runs = direct.search_runs([experiment], "tags.`plm.step` = 'train' and tags.`plm.cached` = 'false'")
    (train,) = runs
    points = direct.get_metric_history(train.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == [1, *range(2, 21, 2)]
    assert {run.info.status for run in direct.search_runs([experiment])} == {"FINISHED"}
    assert place.summary["registered_model_version"]


def test_a_pipeline_that_does_not_require_tracking_runs_without_it(place: Workplace) -> None:
    """Nothing listens at port 9, and the store is asked once, before the steps."""
    options = ("tracking.uri=http://127.0.0.1:9", "tracking.required=false", "--refresh", "convert")
    assert "exact_match before" in Running(place, *options).finish(900)
