"""The playground's settings in links and in PNG files."""

import base64
import io
import json
import re
from collections.abc import Callable
from urllib.parse import urlencode

from PIL import Image, PngImagePlugin
from playground import Visit
from playwright.sync_api import Page, expect


def test_a_link_shares_the_settings(visit: Callable[..., Visit]) -> None:
    one = visit()
    one.page.fill("#prompt", "fox face")
    one.set("#seed", "5, 6")
    one.steps(7)
    one.page.click("text=Fast")
    expect(one.page).to_have_url(re.compile("max_continuous"))
    shared = one.settings()
    assert (shared["prompt"], shared["seed"], shared["num_inference_steps"]) == ("fox face", "5, 6", "7")
    assert json.loads(shared["cache_config"])["residual_diff_threshold"] == 0.24

    other = visit(one.page.url)
    assert other.page.input_value("#prompt") == "fox face"
    assert other.page.input_value("#seed") == "5, 6"
    expect(other.page.locator("#presets [aria-pressed=true]")).to_have_text("Fast")
    assert [body["seed"] for body in other.opening] in ([5, 6, 5, 6], [])

    settings = {"prompt": "rocket", "size": "9x9", "key": "opensesame", "cache_config": "[", "steps": "3"}
    odd = visit(f"{one.page.url.partition('#')[0]}#{urlencode(settings)}")
    expect(odd.page.locator("#prompt")).to_have_value("rocket")
    for complaint in ("size 9x9", "key (unknown)", "steps (unknown)", "cache_config (not a JSON object)"):
        expect(odd.page.locator("#status")).to_contain_text(complaint)


def test_auto_takes_what_was_measured(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    page.fill("#prompt", "sunflower")
    one.set("#seed", 3)
    one.steps(25)
    page.select_option("#scheduler", "DPMSolverMultistepScheduler")
    page.select_option("#backend", "auto")
    page.click("#presets >> text=Fast")
    expect(page.locator("#cache-min_psnr")).to_have_value("25")
    page.fill("#cache-min_psnr", "20")
    one.run()
    bodies = {body["cache_backend"]: body.get("cache_config") for body in one.sent()}
    assert bodies == {"auto": {"min_psnr": 20}, "none": None}
    [cache] = [event["cache"] for event in one.completed() if event["cache"]["backend"] != "none"]
    assert (cache["auto"]["outcome"], cache["auto"]["floor"]) == ("chosen", {"min_psnr": 20})
    assert cache["auto"]["setting"]["cache_backend"] == cache["backend"]
    expect(page.locator("#tag")).to_have_text(cache["tag"])
    expect(page.locator("#warnings")).to_be_hidden()
    shared = one.settings()
    assert (shared["cache_backend"], json.loads(shared["cache_config"])) == ("auto", {"min_psnr": 20})

    # Nothing was measured with so few steps: the picture is the uncached one, and the page says why.
    one.steps(7)
    one.run("#cached-only")
    cache = one.completed()[-1]["cache"]
    assert (cache["auto"]["outcome"], cache["backend"], cache["hit_rate"]) == ("no_case", "none", 0)
    expect(page.locator("#warnings")).to_contain_text("no step is reused")
    one.check_accessibility()


def test_a_png_of_ours_brings_its_settings(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    one.page.fill("#prompt", "rocket")
    one.set("#seed", 77)
    one.steps(9)
    page.select_option("#backend", "cache_dit")
    page.click("text=Prediction")
    page.check("#cache-enable_taylorseer")
    page.click("text=Steps fixed beforehand")
    page.select_option("#cache-scm_steps_mask_policy", "fast")
    one.run("#cached-only")
    [first] = one.completed()
    file = base64.b64decode(first["b64_json"])

    other = visit()
    drop(other.page, "rocket.png", file)
    expect(other.page.locator("#status")).to_contain_text("Settings of rocket.png loaded.")
    other.run("#cached-only")
    [again] = other.completed()
    assert again["b64_json"] == first["b64_json"] and again["cache"]["config"] == first["cache"]["config"]
    assert other.settings()["seed"] == "77"

    # The same texts in the other kinds of chunks, as image programs write them.
    texts = Image.open(io.BytesIO(file)).text
    for kind in ({"zip": True}, {"zip": False}):
        written = PngImagePlugin.PngInfo()
        for name, text in texts.items():
            written.add_text(name, text, **kind) if kind["zip"] else written.add_itxt(name, text, zip=True)
        copy = io.BytesIO()
        Image.open(io.BytesIO(file)).save(copy, "png", pnginfo=written)
        other.set("#seed", 1)
        other.page.set_input_files(
            "#png-file", {"name": "copy.png", "mimeType": "image/png", "buffer": copy.getvalue()}
        )
        expect(other.page.locator("#seed")).to_have_value("77")

    for name, content, sentence in (
        ("a.jpeg", b"\xff\xd8\xff", "a.jpeg is not a PNG file"),
        ("plain.png", plain_png(), "plain.png has no settings of afterimage"),
    ):
        drop(other.page, name, content)
        expect(other.page.locator("#status")).to_contain_text(sentence)
    expect(other.page.locator("#drop")).to_be_hidden()


def plain_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "png")
    return file.getvalue()


def drop(page: Page, name: str, content: bytes) -> None:
    """Drops a file on the page, as a browser does."""
    page.evaluate(
        """([name, base64]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
            for (const type of ["dragover", "drop"]) {
                const event = {bubbles: true, cancelable: true, dataTransfer: transfer};
                document.body.dispatchEvent(new DragEvent(type, event));
            }
        }""",
        [name, base64.b64encode(content).decode()],
    )
