"""`plm ui`: pages of ours, or a word on why not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from components.errors import UserError
from components.pipeline.config import PipelineConfig
from flows.commands.ui import require_free, serve_pages
from flows.run.parent_run import mlflow_run_url


@pytest.mark.case("E15")
@pytest.mark.parametrize("key", ["mlflow_port", "prefect_port"])
def test_a_port_that_is_taken_is_refused_by_its_key(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL"):  # a command would set them for its process
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    free = socket.create_server(("127.0.0.1", 0))
    other = free.getsockname()[1]
    free.close()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ports = {"mlflow_port": other, "prefect_port": other, key: port}
        config = PipelineConfig.model_validate({"tracking": {"state_dir": str(tmp_path), **ports}})
        with pytest.raises(UserError, match=rf"port {port}: cannot be used .*tracking\.{key}"):
            serve_pages(config)
    require_free(port, key)


@pytest.mark.case("E15")
def test_links_lead_to_the_page_that_the_config_names() -> None:
    config = PipelineConfig.model_validate({"tracking": {"mlflow_port": 5055}})
    assert mlflow_run_url(config, "1", "abc") == "http://127.0.0.1:5055/#/experiments/1/runs/abc"
