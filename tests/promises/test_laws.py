"""Laws x optimizers: every promise of laws.py for every row of optimizers_table.py."""

import contextlib

import pytest

from tests.promises.laws import LAWS
from tests.promises.optimizers_table import (
    INSTALLED,
    LEFT_TO_RELEASES,
    NO_OPTIMIZERS,
    OPTIMIZERS,
    with_learning_rates,
)


# Steps are compiled once for all laws: processes share out files, and not tests.
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", INSTALLED)
def test_the_law_holds(law: str, name: str) -> None:
    expectation = contextlib.nullcontext()
    if law in OPTIMIZERS[name].breaks:
        expectation = pytest.raises((AssertionError, ValueError))
        if OPTIMIZERS[name].breaks[law] in LEFT_TO_RELEASES:
            expectation = contextlib.suppress(AssertionError)
    with expectation:
        LAWS[law](name)


def test_every_function_with_a_learning_rate_is_in_the_table() -> None:
    assert set(with_learning_rates()) <= set(OPTIMIZERS) | set(NO_OPTIMIZERS)
    assert set(OPTIMIZERS).isdisjoint(NO_OPTIMIZERS)
    assert len(INSTALLED) >= 40


def test_exceptions_are_about_laws_that_there_are_and_say_why() -> None:
    for row in OPTIMIZERS.values():
        assert set(row.breaks) <= set(LAWS)
        assert all(row.breaks.values())
