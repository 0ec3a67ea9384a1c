"""The table of cases is whole: every kind has a test that the suite or `make e2e` runs."""

from __future__ import annotations

from tests.cases import DEFERRED, KINDS, tests_of_cases


def test_every_case_has_a_test_or_a_reason() -> None:
    assert not sorted(KINDS.keys() - tests_of_cases().keys() - DEFERRED.keys())


def test_no_test_names_an_unknown_case() -> None:
    assert not sorted(tests_of_cases().keys() - KINDS.keys())


def test_a_deferred_case_has_no_test_yet() -> None:
    assert not sorted(DEFERRED.keys() & tests_of_cases().keys())
