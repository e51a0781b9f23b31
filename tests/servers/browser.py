"""Debian's Chromium on the page, and what it asked for and complained about meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.debian import debian_program
from tests.servers.service import TOKEN


@contextmanager
def chromium() -> Iterator[Browser]:
    """As root it has no sandbox, and the pages here are ours."""
    program = debian_program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Seen:
    """What a page asked for, and what the browser or a script complained about."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def forget(self) -> None:
        """What came up to now was wanted."""
        self.urls.clear()
        self.complaints.clear()


@contextmanager
def looking(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page of a browser without cookies, with `page.seen`."""
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.seen = Seen(page)
    yield page
    context.close()


def log_in(page: Page, token: str = TOKEN) -> Page:
    """By the form, from wherever that is."""
    page.goto("/")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()
    return page
