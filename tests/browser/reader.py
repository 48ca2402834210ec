"""One reader of the page: a browser's page, and what the browser complained of."""

from playwright.sync_api import ConsoleMessage, Page, expect

from tests.browser.served import Served

DEADLINE_MS = 60_000

expect.set_options(timeout=DEADLINE_MS)


class Reader:
    """Notes every script that failed, and everything that the page's policy forbade."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, told: ConsoleMessage) -> None:
        is_bug = "TypeError" in told.text and "fetch" not in told.text  # a node may be gone
        if is_bug or "Content Security Policy" in told.text or "Uncaught" in told.text:
            self.faults.append(told.text)

    def open(self, served: Served) -> Page:
        """The page, when it follows the node."""
        self.page.goto(served.way_in)
        expect(self.page.locator("#pulse")).to_have_text("live")
        return self.page
