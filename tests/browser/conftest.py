"""A real Chromium for the tests of the page: Debian's, with nothing kept from before."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.reader import DEADLINE_MS, Reader

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("NO CHROMIUM HERE: the page is not tested (apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def reader(browser: Browser) -> Iterator[Reader]:
    """At a desk. Fails the test where a script fails or the page's policy is broken."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(DEADLINE_MS)
    one = Reader(context.new_page())
    yield one
    context.close()
    assert one.faults == []
