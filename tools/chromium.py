"""Find the system's Chromium and start it without a word to the network."""

import shutil
from contextlib import contextmanager

HOW_TO_GET = (
    "no Chromium on this machine: install it (Debian and Ubuntu: apt install chromium, "
    "macOS: brew install --cask chromium), or put google-chrome on PATH"
)


def find_chromium():
    """Return the path of the system's Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def launch(executable):
    """Start Chromium without anything that talks to the network by itself; yield the browser."""
    from playwright.sync_api import sync_playwright

    quiet = ["background-networking", "component-update", "quic", "sync", "gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)],
        )
        yield browser
        browser.close()
