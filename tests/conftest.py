"""Strictness for every test, and no skip in silence."""

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import jax
import pytest

# The only tests that may be skipped, each with its reason.
ALLOWED_SKIPS: dict[str, str] = {}

os.environ["MPLBACKEND"] = "Agg"  # Figures need no screen.
jax.config.update("jax_numpy_rank_promotion", "raise")

# No test is timed, and a run that fails fails again.
hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def x64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True, scope="session")
def telemetry_of_orbax() -> Iterator[None]:
    """Orbax 0.11.24 reports sizes to a function that jax 0.5.3 does not have yet."""

    def ignore(*args: Any, **kwargs: Any) -> None:
        del args, kwargs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.monitoring, "record_scalar", ignore, raising=False)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = _unlisted_skips(terminalreporter)
    if skipped:
        terminalreporter.section("skips that are not on the list in conftest.py")
        terminalreporter.write_line("\n".join(skipped))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and _unlisted_skips(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unlisted_skips(reporter: pytest.TerminalReporter) -> list[str]:
    reports = reporter.stats.get("skipped", []) + reporter.stats.get("xfailed", [])
    return [r.nodeid for r in reports if r.nodeid not in ALLOWED_SKIPS]
