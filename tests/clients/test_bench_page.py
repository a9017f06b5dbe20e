"""The page of `bench --html` in a real browser, opened as a file."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROGRAM
from playground import SCREENSHOTS
from playwright.sync_api import Browser, Page
from web_page import check_accessibility

SIZES = {"narrow": (400, 850), "wide": (1400, 900)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The preset that takes longest to read: published figures, eight settings."""
    folder = tmp_path_factory.mktemp("bench")
    files = {name: folder / f"report.{name}" for name in ("html", "json")}
    flags = [flag for name, path in files.items() for flag in (f"--{name}", str(path))]
    prompts = folder / "prompts.txt"
    prompts.write_text("sunflower\nred apple\n")
    command = [str(PROGRAM), "bench", "--preset", "seed", "--repeat", "1", "--prompts", str(prompts), *flags]
    subprocess.run(command, check=True)
    return files["html"], json.loads(files["json"].read_text())


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A reader; at the end the browser must not have said anything, or have asked for anything."""
    messages: list[str] = []
    with browser.new_context(color_scheme=request.param) as context:
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda asked: messages.append(asked.url) if asked.url.startswith("http") else None)
        yield page
    assert messages == []


@pytest.mark.parametrize("size", SIZES)
def test_the_page_reads_well(page: Page, report: tuple[Path, dict], size: str) -> None:
    path, facts = report
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rows = facts["rows"]
    assert page.locator("tbody tr").count() == len(rows)
    assert page.locator("img").count() == len(rows) * 2
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth === 64)")
    # Words in graphs are as large as a reader needs, whatever the page is scaled to.
    least = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map((t) => t.getBoundingClientRect().height))"
    )
    assert least >= 9
    check_accessibility(page)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    scheme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    page.screenshot(path=SCREENSHOTS / f"bench-{size}-{scheme}.png", full_page=True)
