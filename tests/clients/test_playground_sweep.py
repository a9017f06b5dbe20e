"""The playground's sweep: points are drawn as they come, one is used, and a sweep can be stopped."""

import json
import re
from collections.abc import Callable
from urllib.request import urlopen

from conftest import DEADLINE_SECONDS
from playground import PHONE, Visit
from playwright.sync_api import expect

SWEEPS = "/v1/cache/sweeps"


def report(one: Visit) -> dict:
    """What the server measured, read again as the page has read it."""
    [sweep] = [url for url in one.page.evaluate(URLS) if re.search(f"{SWEEPS}/sweep_", url)][-1:]
    with urlopen(sweep, timeout=DEADLINE_SECONDS) as response:
        return json.load(response)


URLS = "() => performance.getEntriesByType('resource').map((entry) => entry.name)"


def test_a_point_brings_its_settings(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    page.fill("#prompt", "sunflower")
    one.set("#seed", "3, 4")
    one.steps(12)
    page.click("#sweep-start")
    expect(page.locator("#sweep-stop")).to_be_visible()
    expect(page.locator("#sweep-status")).to_contain_text("settings measured", timeout=DEADLINE_SECONDS * 1000)
    expect(page.locator("#sweep-stop")).to_be_hidden()

    job = report(one)
    assert (job["object"], job["status"], job["seed"]) == ("cache.sweep", "succeeded", 3)
    uncached, *rows = job["report"]["rows"]
    assert uncached["cache_backend"] == "none" and job["report"]["steps"] == 12
    points = page.locator("#sweep-plot .point")
    expect(points).to_have_count(len(rows))
    assert len(rows) >= 10 and {row["cache_backend"] for row in rows} == {"cache_dit", "tea_cache", "mag_cache"}

    # By a click and by the keyboard; the form then asks for what was measured.
    for row, use in ((rows[0], "click"), (rows[-1], "Enter")):
        point = page.locator(f"#sweep-plot .point[data-name='{row['name']}']")
        if use == "click":
            point.click(force=True)
        else:
            point.press(use)
        expect(page.locator("#sweep-chosen")).to_contain_text("Its settings are in the form.")
        expect(page.locator("#backend")).to_have_value(row["cache_backend"])
        one.set("#seed", 3)
        one.run("#cached-only")
        cache = one.completed()[-1]["cache"]
        assert cache["config"] == row["cache_config"] and cache["hit_rate"] == row["hit_rate"]
    one.check_accessibility()
    one.screenshot("playground-sweep")
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    one.screenshot("playground-sweep-phone")
    assert one.problems == []


def test_a_sweep_can_be_stopped(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    page.fill("#prompt", "sunflower")
    one.steps(200)
    page.click("#sweep-start")
    expect(page.locator("#sweep-status")).to_contain_text("Picture")
    with page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        page.click("#sweep-stop")
    assert deleted.value.json()["status"] == "cancelled"
    expect(page.locator("#sweep-status")).to_have_text("Stopped.")
    expect(page.locator("#sweep-start")).to_be_enabled()
    assert one.problems == []


def test_what_is_wrong_is_said_at_its_field(visit: Callable[..., Visit]) -> None:
    one = visit()
    one.set("#steps", 999)
    one.page.click("#sweep-start")
    expect(one.page.locator("#fault-of-steps")).to_contain_text("num_inference_steps")
    expect(one.page.locator("#sweep-start")).to_be_enabled()
    # The browser tells of every answer that is no success.
    assert all("400" in problem for problem in one.problems)
    one.problems.clear()
