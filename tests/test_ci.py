"""What CI relies on: a limit for every test, and no test that is left out without a name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.debian import LIST, debian_program


def test_a_test_without_its_package_is_skipped_by_name_and_fails_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="package chromium is not installed"):
        debian_program("chromium")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="package chromium is not installed"):
        debian_program("chromium")


def test_a_package_that_ci_does_not_install_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"sl is not in .*debian\.txt"):
        debian_program("sl")


def test_every_test_has_a_limit(request: pytest.FixtureRequest) -> None:
    assert request.config.getini("timeout") == "120" and request.config.getini("timeout_method") == "thread"


def test_the_run_installs_what_is_listed_and_is_valid(repository: Path) -> None:
    checked = subprocess.run(["bash", "-n", repository / ".ci/run"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "debian.txt" in (repository / ".ci/run").read_text() and LIST.read_text().split()


@pytest.mark.e2e
def test_a_long_test_has_a_longer_limit(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("timeout").args == (900,)
