"""Open WebUI and LibreChat, by the requests that they send and what they read of the answer.

The applications themselves are too large to install here. Their bodies and headers are those of
`backend/open_webui/routers/images.py` (Open WebUI 0.6) and of `DALLE3.js` and `OpenAIImageTools.js` in
`api/app/clients/tools/structured` (LibreChat 0.8). Both name models of OpenAI's and sizes that the embedded model does
not make, so the server has these names and takes sizes to the nearest.
"""

import base64
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import DEADLINE_SECONDS, Server, running_server

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEY = "sk-chat"


@pytest.fixture(scope="module")
def chat_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as one would set it up for a chat application."""
    flags = ["--served-model-name", "emoji-dit,dall-e-3,gpt-image-1", "--bucket-policy", "nearest"]
    folder = str(tmp_path_factory.mktemp("pictures"))
    flags += ["--cache-backend", "cache_dit", "--output-dir", folder, "--api-key", KEY]
    with running_server(*flags) as server:
        yield server


def post(url: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        return json.load(response)


def fetch(url: str, headers: dict[str, str]) -> tuple[bytes, str]:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        return response.read(), response.headers["content-type"]


BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "body",
    [
        # A model of the administrator's choice, and the size of the settings page.
        {"model": "emoji-dit", "prompt": "red apple", "n": 1, "size": "512x512", "response_format": "b64_json"},
        # Models that match ^gpt-image get no response_format.
        {"model": "gpt-image-1", "prompt": "red apple", "n": 1, "size": "auto"},
        # No model chosen, and parameters of the administrator's own.
        {"model": "", "prompt": "red apple", "n": 2, "response_format": "b64_json", "quality": "low", "seed": -1},
    ],
    ids=["model", "gpt-image", "parameters"],
)
def test_open_webui(chat_server: Server, body: dict[str, Any]) -> None:
    user = {"X-OpenWebUI-User-Name": "Someone", "X-OpenWebUI-User-Id": "1", "X-OpenWebUI-User-Role": "user"}
    answer = post(f"{chat_server.url}/v1/images/generations", body, {**BEARER, **user})
    assert len(answer["data"]) == body["n"]
    for image in answer["data"]:
        # It takes the URL where there is one, and fetches it with the headers of its request.
        if url := image.get("url"):
            picture, content_type = fetch(url, BEARER)
            assert content_type == "image/png"
        else:
            assert "," not in image["b64_json"]
            picture = base64.b64decode(image["b64_json"])
        assert picture.startswith(PNG_SIGNATURE)


def test_open_webui_with_azures_version_in_the_query(chat_server: Server) -> None:
    body = {"model": "gpt-image-1", "prompt": "red apple", "n": 1, "size": "1024x1024"}
    answer = post(f"{chat_server.url}/v1/images/generations?api-version=2025-04-01-preview", body, BEARER)
    assert answer["data"]


def test_librechats_dalle_tool(chat_server: Server) -> None:
    body = {
        "model": "dall-e-3",
        "quality": "standard",
        "style": "vivid",
        "size": "1024x1024",
        "prompt": "red apple",
        "n": 1,
    }
    answer = post(f"{chat_server.url}/v1/images/generations", body, BEARER)
    url = answer["data"][0]["url"]
    # It names its copy after the URL's last part and stores what is there, without a key.
    assert re.search(r"\.(jpg|jpeg|png|gif|bmp|tiff|svg|webp)$", url)
    assert fetch(url, {})[0].startswith(PNG_SIGNATURE)
    # What older clients always send has not changed what the operator set up.
    assert (answer["cache"]["backend"], answer["cache"]["steps"]) == ("cache_dit", 50)


@pytest.mark.parametrize(("headers", "output_format"), [(BEARER, "png"), ({"api-key": KEY}, "webp")])
def test_librechats_image_tool(chat_server: Server, headers: dict[str, str], output_format: str) -> None:
    body = {
        "model": "gpt-image-1",
        "prompt": "red apple",
        "n": 1,
        "background": "auto",
        "output_format": output_format,
        "quality": "auto",
        "size": "auto",
    }
    if output_format == "webp":
        body["output_compression"] = 100
    answer = post(f"{chat_server.url}/v1/images/generations?api-version=2025-04-01-preview", body, headers)
    picture = base64.b64decode(answer["data"][0]["b64_json"])
    assert picture.startswith(PNG_SIGNATURE if output_format == "png" else b"RIFF")
