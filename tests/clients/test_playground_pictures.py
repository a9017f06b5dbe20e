"""Several pictures in the playground, and a large one that has to be judged."""

import base64
import io
import json
import math
import re
from collections.abc import Callable

import pytest
from PIL import Image
from playground import GENERATIONS, Visit, psnr, word
from playwright.sync_api import Request, Route, expect


def test_several_pictures_and_seeds(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    one.steps(8)
    one.set("#seed", "3, 40")
    one.set("#n", 2)
    one.run()
    sent = [(body["cache_backend"], body["seed"], body["n"]) for body in one.sent()]
    assert sent == [("cache_dit", 3, 2), ("cache_dit", 40, 2), ("none", 3, 2), ("none", 40, 2)]
    shots = page.locator("#shots button")
    assert [re.search(r"seed \d+", text)[0] for text in shots.all_inner_texts()] == [
        "seed 3",
        "seed 4",
        "seed 40",
        "seed 41",
    ]
    pictures = [completed_pictures(request.response().text()) for request in one.requests if is_stream(request)]
    cached, uncached = pictures[0] + pictures[1], pictures[2] + pictures[3]
    for at in (0, 3):
        shots.nth(at).click()
        expect(shots.nth(at)).to_have_attribute("aria-pressed", "true")
        shown = one.text("#psnr").removesuffix(" dB")
        if shown == "equal":
            assert psnr(uncached[at], cached[at]) == math.inf
        else:
            assert float(shown) == pytest.approx(psnr(uncached[at], cached[at]), abs=0.051)
        with page.expect_download() as download:
            page.click("#cached .download")
        assert download.value.path().read_bytes() == base64.b64decode(cached[at]["b64_json"])
        assert download.value.suggested_filename == f"sunflower-{cached[at]['seed']}-cached.png"
    one.check_accessibility()
    one.screenshot("several")
    page.reload()
    one.wait_until_opened()
    expect(shots).to_have_count(4)


def is_stream(request: Request) -> bool:
    return json.loads(request.post_data or "").get("stream") is True


def completed_pictures(stream: str) -> list[dict]:
    events = (json.loads(event.partition("data: ")[2]) for event in stream.strip().split("\n\n") if "data: " in event)
    return [event for event in events if event["type"] == "image_generation.completed"]


def test_a_large_picture_can_be_judged(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    page.route(f"**{GENERATIONS}", large_picture)
    one.run()
    assert one.text("#psnr + dd") == "PSNR: another picture"
    page.click("#open-viewer")
    expect(page.locator("#viewer-title")).to_contain_text("1024x1024")
    assert 50 < int(page.inner_text("#zoom").removesuffix(" %")) < 100
    one.check_accessibility()
    page.keyboard.press("1")
    expect(page.locator("#zoom")).to_have_text("100 %")
    assert page.locator("#viewport .sheet").bounding_box()["width"] == 1024
    page.click("#zoom-in")
    expect(page.locator("#zoom")).to_have_text("200 %")

    def colours() -> list[str]:
        """Left and right of the middle of the view."""
        view = page.locator("#viewport").bounding_box()
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        points = [(view["x"] + view["width"] * share, view["y"] + view["height"] * 0.3) for share in (0.25, 0.75)]
        return ["red" if shot.getpixel((int(x), int(y)))[0] > 128 else "blue" for x, y in points]

    assert colours() == ["red", "blue"]
    page.locator("#viewport").evaluate("view => (view.scrollLeft += 300)")
    expect(page.locator(".sheet [data-side=cached]")).to_have_attribute("style", re.compile(r"clip-path: inset\("))
    assert colours() == ["red", "blue"]
    page.focus("#swipe")
    page.keyboard.press("Home")
    assert colours() == ["blue", "blue"]
    page.keyboard.press("End")
    assert colours() == ["red", "red"]
    view = page.locator("#viewport").bounding_box()
    page.mouse.move(view["x"] + view["width"] - 3, view["y"] + 200)
    page.mouse.down()
    page.mouse.move(view["x"] + view["width"] / 2, view["y"] + 200, steps=4)
    page.mouse.up()
    assert colours() == ["red", "blue"]
    for mode, seen in (("Uncached", "red"), ("Cached", "blue")):
        page.locator("#modes").get_by_role("button", name=mode, exact=True).click()
        assert colours() == [seen, seen]
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def large_picture(route: Route) -> None:
    """What a server with a large model would answer: red uncached, blue cached."""
    body = json.loads(route.request.post_data or "")
    is_cached = body["cache_backend"] != "none"
    file = io.BytesIO()
    Image.new("RGB", (1024, 1024), "blue" if is_cached else "red").save(file, "png")
    seconds = ("queue_seconds", "encode_seconds", "denoise_seconds", "decode_seconds", "total_seconds")
    event = {
        "type": "image_generation.completed",
        "b64_json": base64.b64encode(file.getvalue()).decode(),
        "output_format": "png",
        "image_index": 0,
        "seed": body["seed"],
        "cache": {
            "backend": body["cache_backend"],
            "config": {},
            "steps": 2,
            "hit_rate": 0,
            "images": [{"contexts": []}],
        },
        "timings": dict.fromkeys(seconds, 1.0),
    }
    route.fulfill(content_type="text/event-stream", body=f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")


def test_likeness_has_words(visit: Callable[..., Visit]) -> None:
    script = "async (values) => { const { word } = await import('./playground/likeness.js'); return values.map(word); }"
    # JSON has no infinity, but Playwright hands it over.
    values = [math.inf, 60, 45, 44.9, 35, 34.9, 28, 27.9, 20, 19.9, 0]
    words = visit().page.evaluate(script, values)
    assert words == ["identical", *map(word, values[1:])]
