"""The Vercel AI SDK's generateImage, with its OpenAI provider and the one for servers that speak like OpenAI."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import NODE_PACKAGES, Server, required_program

SCRIPT = Path(__file__).parent / "javascript" / "generate_image.mjs"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def generate(server: Server, provider: str, **call: Any) -> dict[str, Any]:
    """What `generateImage` gives or throws."""
    node = required_program("node")
    required_program("npm")  # without it there are no packages
    call = {"provider": provider, "url": server.url, "model": "emoji-dit", "prompt": "red apple", **call}
    env = {**os.environ, "NODE_PACKAGES": str(NODE_PACKAGES.resolve())}
    run = subprocess.run([node, str(SCRIPT), json.dumps(call)], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("provider", ["openai", "openai-compatible"])
def test_pictures(server: Server, provider: str) -> None:
    options = {"quality": "low"}
    answer = generate(server, provider, n=2, size="64x64", providerOptions={"openai": options, "afterimage": options})
    assert len(answer["pictures"]) == 2, answer
    for picture in answer["pictures"]:
        assert picture["mediaType"] == "image/png"
        assert base64.b64decode(picture["base64"]).startswith(PNG_SIGNATURE)


def test_openai_options(server: Server) -> None:
    options = {"quality": "low", "style": "vivid", "outputFormat": "webp", "user": "someone", "moderation": "low"}
    answer = generate(server, "openai", providerOptions={"openai": options})
    [picture] = answer["pictures"]
    assert (picture["mediaType"], answer["providerMetadata"]["openai"]["images"][0]["outputFormat"]) == (
        "image/webp",
        "webp",
    )


def test_fields_of_the_server_alone(server: Server) -> None:
    fields = {"seed": 3, "num_inference_steps": 2, "cache_backend": "cache_dit"}
    first, second = (
        generate(server, "openai-compatible", providerOptions={"afterimage": fields})["pictures"] for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("provider", ["openai", "openai-compatible"])
def test_errors_arrive_with_their_message(server: Server, provider: str) -> None:
    error = generate(server, provider, size="1024x1024")["error"]
    assert error["status"] == 400
    assert "size" in error["message"]
