"""The API's page at /docs: every example is sent from it, as a reader would."""

import json
import re
from collections.abc import Iterator

import pytest
from conftest import DEADLINE_SECONDS, Server, running_server
from playwright.sync_api import Browser, Locator, Page, Route, expect
from prefix_proxy import prefixed
from web_page import check_accessibility


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page; at the end the browser must not have complained."""
    problems: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(DEADLINE_SECONDS * 1000)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{server.url}/docs")
        yield page
    assert problems == []


def form(page: Page, operation: str) -> Locator:
    """The form of an operation, unfolded."""
    found = page.locator(f"form[data-operation={operation}]")
    if not found.is_visible():
        page.locator(f"summary:has(~ section#{operation})").click()
    return found


def send(found: Locator) -> tuple[int, str]:
    """Status and body as they are shown."""
    found.get_by_role("button", name="Send").click()
    expect(found.get_by_role("button", name="Send")).to_be_enabled()
    status = re.match(r"\d+", found.locator(".answer strong").inner_text())
    assert status is not None
    return int(status[0]), found.locator(".answer pre").last.inner_text()


def test_every_example_can_be_sent(page: Page, server: Server) -> None:
    document = json.loads(server.get("/openapi.json")[1])
    sent = 0
    for item in document["paths"].values():
        for operation in item.values():
            examples = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples")
            for example in (examples or {}).values():
                found = form(page, operation["operationId"])
                found.locator(".example").select_option(label=example["summary"])
                assert json.loads(found.locator(".body").input_value()) == example["value"]
                status, body = send(found)
                assert status in (200, 202), (operation["operationId"], example["summary"], body)
                assert len(body) < 20_000
                sent += 1
    assert sent >= 6


def test_pictures_streams_and_errors_are_shown(page: Page) -> None:
    found = form(page, "createImage")
    send(found)
    expect(found.get_by_alt_text("A picture of the answer")).to_have_count(1)
    found.locator(".example").select_option(label="Several pictures as JPEG")
    send(found)
    expect(found.get_by_alt_text("A picture of the answer")).to_have_count(3)
    found.locator(".example").select_option(label="A stream with previews and progress")
    _, stream = send(found)
    assert "event: image_generation.progress" in stream and "image_generation.completed" in stream
    found.locator(".example").select_option(label="One picture")
    expect(found.locator(".curl")).to_contain_text("/v1/images/generations")
    found.locator("summary").click()
    expect(found.locator(".curl")).to_contain_text('"prompt": "red apple"')


def test_ids_go_on_to_the_forms_that_take_them(page: Page, server: Server) -> None:
    status, body = send(form(page, "createImageJob"))
    job = json.loads(body)["id"]
    assert status == 202
    retrieve = form(page, "retrieveImageJob")
    assert retrieve.locator("[name=id]").input_value() == job
    status, body = send(retrieve)
    assert (status, json.loads(body)["id"]) == (200, job)
    assert send(form(page, "deleteImageJob"))[0] == 200
    assert send(form(page, "listImageJobs"))[0] == 200
    model = form(page, "retrieveModel")
    assert model.locator("[name=id]").input_value() == "emoji-dit"
    assert send(model)[0] == 200
    assert "afterimage_" in send(form(page, "expose"))[1]


def test_it_is_accessible_and_works_without_scripts(page: Page, browser: Browser, server: Server) -> None:
    send(form(page, "createImage"))
    page.locator("details").evaluate_all("all => all.forEach(details => details.open = true)")
    check_accessibility(page)
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto(f"{server.url}/docs")
        expect(plain.get_by_text("/v1/images/generations")).not_to_have_count(0)
        expect(plain.locator("form:visible")).to_have_count(0)


def test_keys_and_prefixes(browser: Browser) -> None:
    with (
        running_server("--api-key", "opensesame") as server,
        prefixed(server, "/images") as url,
        browser.new_context() as context,
    ):
        page = context.new_page()
        page.goto(f"{url}docs")
        models = form(page, "listModels")
        assert send(models)[0] == 401
        page.fill("#api-key", "opensesame")
        assert send(models)[0] == 200
        models.locator("summary").click()
        expect(models.locator(".curl")).to_contain_text("Bearer $AFTERIMAGE_API_KEY")
        expect(models.locator(".curl")).to_contain_text(f"{url}v1/models")
        assert "opensesame" not in page.content()


def test_examples_fit_the_served_model(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    def only_cats(route: Route) -> None:
        route.fulfill(json={"data": [{"id": "cats", "labels": [{"id": 0, "label": "tabby, tabby cat"}]}]})

    with running_server() as server, browser.new_context() as context:
        page = context.new_page()
        page.route("**/v1/models", only_cats)
        page.goto(f"{server.url}/docs")
        found = form(page, "createImage")
        expect(found.locator(".body")).to_have_value(re.compile('"prompt": "tabby"'))
        found.locator(".example").select_option(label="With a cache")
        expect(found.locator(".body")).to_have_value(re.compile('"prompt": "tabby"'))
