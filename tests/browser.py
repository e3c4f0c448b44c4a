"""What tests in a real browser need."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium")


def browser_test(test):
    """A test that drives a page in chromium."""
    missing = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
    return pytest.mark.slow(pytest.mark.browser(missing(test)))
