"""The playground in a real browser (Chromium), driven as a person would."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Server, running_server
from playground import DESKTOP, GENERATIONS, PHONE, Visit, psnr, word
from playwright.sync_api import Browser, Page, expect
from prefix_proxy import prefixed


def test_pictures_side_by_side(visit: Callable[..., Visit]) -> None:
    one = visit()
    one.page.fill("#prompt", "sunflower")
    one.set("#seed", 3)
    one.steps(16)
    one.page.click("text=Balanced")
    one.run()

    cached, uncached = one.completed()
    assert (cached["cache"]["backend"], uncached["cache"]["backend"]) == ("cache_dit", "none")
    assert all(body["seed"] == 3 and body["partial_images"] == 2 for body in one.sent())
    for side in ("uncached", "cached"):
        expect(one.page.get_by_alt_text(f"The {side} picture, finished")).to_have_class("crisp")
    quotient = uncached["timings"]["denoise_seconds"] / cached["timings"]["denoise_seconds"]
    assert one.text("#speed-up") == f"{quotient:.2f}x"
    assert float(one.text("#psnr").removesuffix(" dB")) == pytest.approx(psnr(uncached, cached), abs=0.051)
    assert one.text("#hit-rate") == f"{math.floor(100 * cached['cache']['hit_rate'] + 0.5)} %"
    assert one.text("#psnr + dd") == f"PSNR: {word(psnr(uncached, cached))}"
    assert one.text("#tag") == cached["cache"]["tag"]
    check_timeline(one.page, cached["cache"])
    expect(one.page.locator("#timeline-uncached .cell[data-outcome=computed]")).to_have_count(16)
    expect(one.page.locator("#history li").first).to_contain_text("sunflower, seed 3, 16 steps")
    expect(one.page.locator("#metrics")).to_contain_text(re.compile(r"Rows per forward\s*\d\.\d\d"))
    one.screenshot("playground")


def check_timeline(page: Page, cache: dict) -> None:
    """The cells say what the response says."""
    [context] = cache["images"][0]["contexts"]
    cells = page.locator("#timeline-cached .cell").evaluate_all("cells => cells.map(cell => ({...cell.dataset}))")
    assert {cell["step"]: cell["reason"] for cell in cells} == context["reasons"]
    distances = {cell["step"]: json.loads(cell["distance"]) for cell in cells if "distance" in cell}
    assert distances == context["residual_diffs"]
    assert [int(cell["step"]) for cell in cells if cell["outcome"] == "cached"] == context["cached_steps"]
    step = context["cached_steps"][0]
    page.hover(f"#timeline-cached .cell[data-step='{step}']")
    distance = context["residual_diffs"][str(step)]
    expect(page.locator("#step")).to_have_text(
        f"Cached, step {step}: reused, distance {distance:.4f}, threshold {cache['config']['residual_diff_threshold']}"
    )


def test_the_keyboard_is_enough(visit: Callable[..., Visit]) -> None:
    one = visit()
    keyboard, focused = one.page.keyboard, one.page.locator(":focus")

    def go_to(selector: str) -> None:
        for _ in range(60):
            keyboard.press("Tab")
            assert focused.evaluate("control => getComputedStyle(control).outlineStyle") != "none"
            if focused.evaluate(f"control => control.matches({json.dumps(selector)})"):
                return
        pytest.fail(f"no way to {selector}")

    go_to("#prompt")
    keyboard.press("Control+a")
    keyboard.type("fox face")
    go_to("#steps")
    keyboard.press("Control+a")
    keyboard.type("6")
    keyboard.press("Enter")
    one.wait()
    assert [(body["prompt"], body["num_inference_steps"]) for body in one.sent()] == [("fox face", 6)] * 2
    expect(one.page.locator("#status")).to_contain_text("Done: ")
    go_to("#open-viewer")
    keyboard.press("Enter")
    expect(one.page.locator("#swipe")).to_be_focused()
    keyboard.press("ArrowRight")
    assert float(one.page.input_value("#swipe")) > 50
    keyboard.press("Escape")
    expect(one.page.locator("#open-viewer")).to_be_focused()
    go_to("#timeline-cached .cell")
    keyboard.press("ArrowRight")
    expect(one.page.locator("#step")).to_contain_text("Cached, step 1: computed: warm-up")
    keyboard.press("End")
    expect(one.page.locator("#step")).to_contain_text("Cached, step 5:")


def test_a_phone_and_the_dark(visit: Callable[..., Visit]) -> None:
    one = visit(viewport=PHONE, color_scheme="dark", has_touch=True)
    one.steps(30)
    one.page.click("text=Fast")
    assert one.page.locator("#compare").bounding_box()["y"] < PHONE["height"] / 2
    one.run("#cached-only")
    one.check_accessibility()
    one.page.locator("details").evaluate_all("all => all.forEach(details => details.open = true)")
    assert one.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    colours = one.page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    background, ink = (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3 for colour in colours)
    assert background < 50 < 200 < ink
    one.screenshot("phone-dark")


def test_faults_stand_at_their_field(visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page

    def fault(field: str) -> str:
        one.run()
        expect(page.locator(".fault")).to_have_count(1)
        expect(page.locator(f"#{field}")).to_be_focused()
        assert page.locator(f"#{field}").get_attribute("aria-describedby").split()[0] == f"fault-of-{field}"
        return one.text(f"#fault-of-{field}")

    page.fill("#prompt", "zzzz qqqq")
    assert "zzzz qqqq" in fault("prompt")
    page.fill("#prompt", "fox face")
    page.fill("#steps", "0")
    assert "`num_inference_steps` is 0" in fault("steps")
    one.steps(2)
    page.fill("#seed", "1" * 18)
    assert "9007199254740991" in fault("seed")
    page.fill("#seed", "1, 2, 3")
    page.fill("#n", "4")
    assert "12 pictures" in fault("seed")
    page.fill("#n", "1")
    page.fill("#seed", "1")
    page.fill("#cache-Fn_compute_blocks", "99")
    assert "99" in fault("cache-Fn_compute_blocks")
    page.click("#json summary")
    page.fill("#cache-json", '{"Fn_compute_block": 1}')
    assert "did you mean `Fn_compute_blocks`" in fault("cache-json")
    page.fill("#cache-json", '{"Fn_compute_blocks": ')
    assert "not valid JSON" in fault("cache-json")
    # The browser reports every refused request, too.
    assert all("400" in problem for problem in one.problems)
    one.problems.clear()


def test_one_configuration_in_three_views(visit: Callable[..., Visit]) -> None:
    one = visit()
    page, pressed = one.page, one.page.locator("#presets [aria-pressed=true]")
    page.click("#json summary")
    page.click("text=Quality")
    json_text = page.locator("#cache-json")
    assert json.loads(json_text.input_value())["enable_taylorseer"] is True
    expect(pressed).to_have_text("Quality")
    page.fill("#cache-max_continuous_cached_steps", "-1")
    assert json.loads(json_text.input_value())["max_continuous_cached_steps"] == -1
    expect(pressed).to_have_count(0)
    json_text.fill('{"residual_diff_threshold": 0.05, "cache_type": "DBPrune", "non_prune_block_ids": [1, 2]}')
    expect(page.locator("#cache-residual_diff_threshold")).to_have_value("0.05")
    expect(page.locator("#cache-non_prune_block_ids")).to_have_value("1, 2")
    expect(page.locator("#cache-continuous_counter")).to_have_count(0)
    page.click("#curl summary")
    expect(page.locator("#curl-text")).to_contain_text('"cache_type": "DBPrune"')
    page.select_option("#backend", "mag_cache")
    assert json.loads(json_text.input_value()) == {}
    expect(pressed).to_have_text("Fast")


def test_the_uncached_picture_can_be_kept(visit: Callable[..., Visit]) -> None:
    one = visit()
    one.steps(6)
    one.page.click("text=How it is run")
    one.page.check("#keep")
    one.run()
    one.page.click("text=Quality")
    one.run()
    assert [body["cache_backend"] for body in one.sent()] == ["cache_dit", "none", "cache_dit"]
    expect(one.page.locator("#speed-up")).to_contain_text("x")
    one.page.click("#dice")
    one.page.check("#concurrent")
    one.run()
    assert [body["cache_backend"] for body in one.sent()][3:] == ["cache_dit", "none"]
    expect(one.page.locator("#status")).to_contain_text("while sharing the machine")
    runs = one.page.locator("#history li")
    shown = runs.count()
    one.page.get_by_role("button", name="Show").last.click()
    expect(one.page.locator("#status")).to_contain_text("An earlier run: ")
    assert runs.count() == shown >= 3


def test_a_run_can_be_stopped(visit: Callable[..., Visit], server: Server) -> None:
    one = visit()
    one.steps(200)
    one.page.click("#cached-only")
    expect(one.page.locator("#cached .caption")).to_contain_text("step ")
    one.page.click("#stop")
    one.wait()
    expect(one.page.locator("#status")).to_have_text("Stopped.")
    server.wait_until("its rows are free", lambda: "afterimage_running_rows 0\n" in server.get("/metrics")[1])


def test_caches_that_lack_a_calibration_are_closed(visit: Callable[..., Visit], tiny_model: Path) -> None:
    with running_server("--model", str(tiny_model)) as server, visit(server.url) as one:
        for backend in ("tea_cache", "mag_cache"):
            expect(one.page.locator(f"#backend option[value={backend}]")).to_be_disabled()
            expect(one.page.locator("#unavailable")).to_contain_text(f"{backend}: this model has no ")
        expect(one.page.locator("#backend option[value=cache_dit]")).to_be_enabled()


def test_text_to_image_with_two_kinds_of_guidance(visit: Callable[..., Visit]) -> None:
    model = Path(__file__).parents[1] / "fixtures/flux-dev/model"
    with running_server("--model", str(model), "--buckets", "64x64") as flux, visit(flux.url) as person:
        assert person.opening == []
        expect(person.page.locator("#status")).to_contain_text("Write a prompt, then press Compare.")
        check_a_growing_prompt(person.page)
        person.page.fill("#prompt", "A red apple on a wooden table")
        person.page.fill("#negative", "blurry")
        person.page.fill("#true-cfg", "3")
        person.steps(6)
        person.page.press("#prompt", "Control+Enter")
        person.wait()
        for request in person.sent():
            keys = ("negative_prompt", "true_cfg_scale", "guidance_scale")
            assert [request[key] for key in keys] == ["blurry", 3, 3.5]
        [cached] = [done["cache"] for done in person.completed() if done["cache"]["backend"] == "cache_dit"]
        assert [context["branch"] for context in cached["images"][0]["contexts"]] == ["cond", "uncond"]


def check_a_growing_prompt(page: Page) -> None:
    """As high as its text, and never so high that Compare leaves the first screen."""
    height = lambda: page.locator("#prompt").bounding_box()["height"]  # noqa: E731
    page.fill("#prompt", "a")
    empty = height()
    page.fill("#prompt", "a long prompt " * 14)
    grown = height()
    page.fill("#prompt", "a long prompt " * 300)
    compare = page.locator("#compare").bounding_box()
    assert empty < grown < height() < compare["y"] + compare["height"] < DESKTOP["height"]


def test_a_key_is_asked_for(browser: Browser) -> None:
    with running_server("--api-key", "opensesame", "--protect-metrics") as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#api-key")).to_be_focused()
        page.fill("#api-key", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_visible()
        page.fill("#api-key", "opensesame")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator("html")).to_have_attribute("data-opened", "true")
        page.fill("#steps", "2")
        page.click("#cached-only")
        expect(page.locator("#status")).to_contain_text("Done: ")
        expect(page.locator("#metrics")).to_contain_text("Hit rate")
        page.click("#curl summary")
        expect(page.locator("#curl-text")).to_contain_text("Bearer $AFTERIMAGE_API_KEY")
        expect(page).to_have_url(re.compile("num_inference_steps=2"))
        stored = page.evaluate("JSON.stringify({...localStorage})")
        assert all("opensesame" not in text for text in (page.content(), page.url, stored))


def test_it_can_be_left_out(server: Server) -> None:
    assert server.get("/")[0] == 200
    with running_server("--playground", "false") as plain:
        assert [plain.get(path)[0] for path in ("/", "/playground/main.js", "/v1/models")] == [404, 404, 200]


def test_it_works_behind_a_path_prefix(visit: Callable[..., Visit], server: Server) -> None:
    with prefixed(server, "/images") as url, visit(url) as one:
        one.steps(4)
        one.run("#cached-only")
        assert all(urlsplit(request.url).path == f"/images{GENERATIONS}" for request in one.requests)
        one.page.click("#curl summary")
        expect(one.page.locator("#curl-text")).to_contain_text(f"{url}v1/images/generations")
        expect(one.page.locator("#metrics")).to_contain_text("Hit rate")
        one.page.click("text=API")
        expect(one.page.locator("h1")).to_contain_text("afterimage")
        assert urlsplit(one.page.url).path == "/images/docs"
