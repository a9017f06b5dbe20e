"""What the playground draws by itself when it is opened, and when it waits."""

import json
from collections.abc import Callable

import pytest
from conftest import Server, running_server
from playground import DESKTOP, GENERATIONS, PHONE, Visit
from playwright.sync_api import Browser, Route, expect


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_opens_with_a_picture_already_drawn(visit: Callable[..., Visit], screen: dict[str, int]) -> None:
    # What a server has measured decides; a busy one would measure that nothing is cheap.
    measured = {"seconds_per_row_step": None, "decode_seconds": None}

    def card(route: Route) -> None:
        card = json.loads(server.get("/v1/models")[1])
        card["data"][0]["buckets"][0] |= measured
        route.fulfill(json=card)

    with (
        running_server() as server,
        visit(server.url, {"**/v1/models": card}, viewport=screen, has_touch=screen is PHONE) as one,
    ):
        page = one.page
        assert [body["cache_backend"] for body in one.opening] == ["cache_dit", "none"]
        assert {(body["prompt"], body["seed"], body["partial_images"]) for body in one.opening} == {("sunflower", 1, 0)}
        expect(page.locator("#status")).to_contain_text("Drawn when the page was opened: ")
        for side in ("uncached", "cached"):
            expect(page.get_by_alt_text(f"The {side} picture, finished")).to_be_visible()
        compare, picture = (page.locator(name).bounding_box() for name in ("#compare", "#cached .frame"))
        assert compare["y"] + compare["height"] < screen["height"] and picture["y"] < screen["height"]
        assert page.evaluate("shifts.reduce((sum, shift) => sum + shift, 0)") < 0.02
        assert "#" not in page.url
        measured |= {"seconds_per_row_step": 0.001, "decode_seconds": 0.001}
        one.check_accessibility()
        one.screenshot(f"opened-{screen['width']}")

        page.reload()
        one.wait_until_opened()
        assert one.opening == []
        expect(page.locator("#status")).to_contain_text("An earlier run of yours: ")
        expect(page.locator("#history li")).to_have_count(1)
        expect(page.get_by_alt_text("The cached picture, finished")).to_be_visible()
        page.click("#clear-history")
        expect(page.locator("#history li")).to_have_count(0)
        page.reload()
        one.wait_until_opened()
        assert len(one.opening) == 2
        expect(page.locator("#history li")).to_have_count(1)


def test_a_busy_or_slow_server_draws_nothing_by_itself(browser: Browser, server: Server) -> None:
    def slow(route: Route) -> None:
        card = json.loads(server.get("/v1/models")[1])
        card["data"][0]["buckets"][0] |= {"seconds_per_row_step": 1, "decode_seconds": 1}
        route.fulfill(json=card)

    def large_and_unknown(route: Route) -> None:
        card = json.loads(server.get("/v1/models")[1])
        card["data"][0]["buckets"] = [{"size": "512x512", "seconds_per_row_step": None, "decode_seconds": None}]
        route.fulfill(json=card)

    def unmeasured(route: Route) -> None:
        card = json.loads(server.get("/v1/models")[1])
        card["data"][0]["buckets"][0] |= {"seconds_per_row_step": None, "decode_seconds": None}
        route.fulfill(json=card)

    def busy(route: Route) -> None:
        route.fulfill(body="afterimage_queue_depth 3\n")

    for path, answer, sentence in (
        ("**/v1/models", slow, "would take about"),
        ("**/v1/models", large_and_unknown, "not been measured"),
        ("**/metrics", busy, "requests waiting: 3"),
    ):
        with browser.new_context() as context:
            page = context.new_page()
            page.route(path, answer)
            if answer is busy:
                page.route("**/v1/models", unmeasured)
            page.route(f"**{GENERATIONS}", lambda route: pytest.fail(f"sent {route.request.post_data}"))
            page.goto(server.url)
            expect(page.locator("html")).to_have_attribute("data-opened", "true")
            expect(page.locator("#status")).to_contain_text(sentence)
