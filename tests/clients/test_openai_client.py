"""The stock OpenAI client."""

import base64

import pytest
from conftest import Server
from openai import OpenAI

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="unused")


def test_a_picture_with_cache_control(client: OpenAI) -> None:
    cache = {"cache_backend": "cache_dit", "cache_config": {"residual_diff_threshold": 0.24}}
    images = client.images.generate(
        prompt="red apple", n=2, size="64x64", extra_body={"seed": 3, "num_inference_steps": 8, **cache}
    )
    assert [image.seed for image in images.data] == [3, 4]
    assert all(base64.b64decode(image.b64_json).startswith(PNG_SIGNATURE) for image in images.data)
    assert images.cache["steps"] == 8
    assert images._request_id


def test_streaming_pictures(client: OpenAI) -> None:
    stream = client.images.generate(
        prompt="fox face", stream=True, partial_images=2, extra_body={"seed": 7, "num_inference_steps": 8}
    )
    events = [(event.type, getattr(event, "partial_image_index", None)) for event in stream]
    assert events == [
        ("image_generation.partial_image", 0),
        ("image_generation.partial_image", 1),
        ("image_generation.completed", None),
    ]
