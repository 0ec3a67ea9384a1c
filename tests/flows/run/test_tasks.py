"""A step's Prefect task agrees with what the flow says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import UserError


@pytest.mark.case("R8")
@pytest.mark.parametrize("writable", [True, False])
def test_a_result_that_prefect_cannot_keep_fails_the_flow(prefect_api: str, tmp_path: Path, writable: bool) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from flows.run.tasks import step_task

    (tmp_path / "file").write_text("")
    place = tmp_path / ("folder" if writable else "file/folder")
    made: list[int] = []

    @flow(name="one-step")
    def chain() -> list[str]:
        return step_task("ingest", f"key-{tmp_path}", reuse=False)(lambda: made.append(1) or ["made"], {})  # type: ignore[func-returns-value]

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: place}):
        state = chain(return_state=True)
    assert made == [1], state
    assert (state.type.value == "COMPLETED") is writable
    if not writable:
        with pytest.raises(UserError, match=f"ingest: done, but Prefect cannot keep its result in {place}; make that"):
            state.result()
