"""A real browser for tests: Chromium, driven by playwright."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (  # for root, too; without a graphics card; and with no calls home
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 90_000  # ms for what should happen at once: other tests may run beside this one


def executable(own: str) -> str:
    """Chromium's path: `SRCOURSE_CHROMIUM`, or one that is installed, or playwright's own; the test is skipped where there is none."""
    named = os.environ.get("SRCOURSE_CHROMIUM")
    if named:
        if not shutil.which(named):
            pytest.fail(f"SRCOURSE_CHROMIUM names {named}, which cannot be run: expected Chromium's path, or no such variable")
        return named
    found = next(filter(None, map(shutil.which, (*NAMES, own))), None)
    if found is None:
        pytest.skip("there is no Chromium: install it (Debian: apt install chromium), or set SRCOURSE_CHROMIUM to its path")
    return found


@contextmanager
def chromium():
    """Playwright's browser; the test is skipped where playwright or Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: it is in the dependency group dev")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable(playwright.chromium.executable_path), args=list(OPTIONS))
        try:
            yield running
        finally:
            running.close()


@contextmanager
def session(running, *, width: int = 1400, height: int = 1000):
    """A window without a past: no cookies, nothing cached. Its pages share what they load."""
    context = running.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE)
    try:
        yield context
    finally:
        context.close()


@contextmanager
def watched(context, home: str):
    """A page, and a list in which its complaints gather: script errors, and requests to any address outside `home`."""
    page, complaints = context.new_page(), []
    at_home = (home, home.replace("http", "ws", 1), "data:", "blob:")
    page.on("console", lambda message: complaints.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    page.on("request", lambda request: None if request.url.startswith(at_home) else complaints.append(f"request: {request.url}"))
    try:
        yield page, complaints
    finally:
        page.close()


def keep(page, name: str) -> None:
    """A screenshot in the folder `SRCOURSE_SCREENSHOTS`, if that is set."""
    folder = os.environ.get("SRCOURSE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")
