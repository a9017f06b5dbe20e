"""A person at the playground in a real browser (Chromium), and how the tests look at pictures."""

import base64
import io
import json
import math
import re
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from conftest import DEADLINE_SECONDS, PROGRAM
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Page, Request, expect
from web_page import check_accessibility

SCREENSHOTS = PROGRAM.parents[1] / "clients" / "screenshots"
GENERATIONS = "/v1/images/generations"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# Layout shifts that Chromium counts against a page, as https://web.dev/articles/cls has them; good is below 0.1.
NOTE_SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
    }).observe({type: "layout-shift", buffered: true});
"""


class Visit:
    """One person at the page. What the browser complains about is in `problems`.

    As a context it ends with the page closed. A page asks for the server's figures every two seconds, so that of a server
    which ends within a test is closed before, or it may find nobody there.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self.requests: list[Request] = []
        page.set_default_timeout(DEADLINE_SECONDS * 1000)
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._note_request)
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('CSP', event.blockedURI))"
        )
        page.add_init_script(NOTE_SHIFTS)
        page.goto(url)
        self.wait_until_opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.page.context.close()

    def wait_until_opened(self) -> None:
        """Until the page has drawn what it draws by itself, or has decided not to."""
        expect(self.page.locator("html")).to_have_attribute("data-opened", "true")
        self.opening = self.sent()
        self.requests.clear()

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)

    def _note_request(self, request: Request) -> None:
        if request.url.endswith(GENERATIONS):
            self.requests.append(request)

    def set(self, field: str, value: object) -> None:
        """Fills a field; on a phone the settings are folded."""
        if not self.page.locator(field).is_visible():
            self.page.click("#settings-toggle")
        self.page.fill(field, str(value))

    def steps(self, steps: int) -> None:
        self.set("#steps", steps)

    def run(self, button: str = "#compare") -> None:
        self.page.click(button)
        self.wait()

    def wait(self) -> None:
        """Until nothing runs any more."""
        expect(self.page.locator("#compare")).to_be_enabled()

    def sent(self) -> list[dict]:
        """The streamed requests so far: not the step that warms the model up."""
        bodies = [json.loads(request.post_data or "") for request in self.requests]
        return [body for body in bodies if body.get("stream")]

    def completed(self) -> list[dict]:
        """What the server answered to them."""
        streams = [request for request in self.requests if json.loads(request.post_data or "").get("stream")]
        return [last_event(request.response().text()) for request in streams]

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def settings(self) -> dict[str, str]:
        """What the address says."""
        expect(self.page).to_have_url(re.compile("#."))
        return dict(parse_qsl(urlsplit(self.page.url).fragment))

    def check_accessibility(self) -> None:
        check_accessibility(self.page)

    def screenshot(self, name: str) -> None:
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def last_event(stream: str) -> dict:
    return json.loads(stream.strip().split("\n\n")[-1].partition("data: ")[2])


def psnr(a: dict, b: dict) -> float:
    """Of the pictures in two events, in dB."""
    first, second = (Image.open(io.BytesIO(base64.b64decode(event["b64_json"]))).convert("RGB") for event in (a, b))
    squares = ImageStat.Stat(ImageChops.difference(first, second)).sum2
    error = sum(squares) / (3 * first.width * first.height)
    return 10 * math.log10(255**2 / error) if error else math.inf


def word(decibels: float) -> str:
    scale = [(45, "not visible"), (35, "hardly visible"), (28, "visible in details"), (20, "clearly visible")]
    return next((word for bound, word in scale if decibels >= bound), "another picture")
