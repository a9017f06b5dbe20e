"""The stock OpenAI client: what people point at this server without changing it."""

import asyncio
import base64
import io
import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import openai
import pytest
from conftest import Server
from openai import AsyncOpenAI, OpenAI
from PIL import Image

# One guided image at a time, and one that waits.
NARROW = ("--max-batch-rows", "2", "--max-queued-requests", "1")
LONG = {"seed": 1, "num_inference_steps": 200}


def client_of(server: Server, **options: object) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="unused", **options)


@pytest.fixture
def client(server: Server) -> OpenAI:
    return client_of(server)


def picture(base64_text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(base64_text)))


def test_pictures_with_cache_control(client: OpenAI) -> None:
    cache = {"cache_backend": "cache_dit", "cache_config": {"residual_diff_threshold": 0.12, "Fn_compute_blocks": 4}}
    images = client.images.generate(
        model="emoji-dit",
        prompt="red apple",
        n=2,
        size="64x64",
        response_format="b64_json",
        user="someone",
        extra_body={"seed": 3, "num_inference_steps": 8, **cache},
    )
    assert [image.seed for image in images.data] == [3, 4]
    assert [picture(image.b64_json).size for image in images.data] == [(64, 64)] * 2
    assert (images.size, images.output_format, images.usage.total_tokens) == ("64x64", "png", 0)
    assert images.cache["backend"] == "cache_dit"
    assert images.cache["config"].items() >= cache["cache_config"].items()
    assert [len(image["contexts"][0]["reasons"]) for image in images.cache["images"]] == [8, 8]
    assert images._request_id


def test_the_same_seed_is_the_same_picture(client: OpenAI) -> None:
    request = {"prompt": "fox face", "extra_body": {"seed": 7, "num_inference_steps": 4}}
    first, second = (client.images.generate(**request) for _ in range(2))
    assert first.data[0].b64_json == second.data[0].b64_json


def test_headers_and_request_ids(client: OpenAI) -> None:
    answer = client.images.with_raw_response.generate(
        prompt="fox face", extra_body={"num_inference_steps": 1}, extra_headers={"x-request-id": "trace-1"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.request_id == answer.parse()._request_id == "trace-1"


def test_streaming_pictures(client: OpenAI) -> None:
    request = {"prompt": "fox face", "extra_body": {"seed": 7, "num_inference_steps": 8}}
    events = list(client.images.generate(stream=True, partial_images=2, **request))
    assert [(event.type, getattr(event, "partial_image_index", None)) for event in events] == [
        ("image_generation.partial_image", 0),
        ("image_generation.partial_image", 1),
        ("image_generation.completed", None),
    ]
    assert all(picture(event.b64_json).size == (64, 64) for event in events)
    assert events[-1].b64_json == client.images.generate(**request).data[0].b64_json
    assert events[-1].cache["steps"] == 8


def test_progress_on_request(client: OpenAI) -> None:
    body = {"seed": 7, "num_inference_steps": 12, "cache_backend": "cache_dit", "progress": True}
    events = list(client.images.generate(prompt="fox face", stream=True, extra_body=body))
    progress, completed = events[:-1], events[-1]
    assert {event.type for event in progress} == {"image_generation.progress"}
    steps = [event.step for event in progress]
    assert steps == sorted(steps)
    assert (progress[-1].step, progress[-1].total) == (12, 12)
    [context] = completed.cache["images"][0]["contexts"]
    assert progress[-1].cached == len(context["cached_steps"])


def test_models(client: OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.owned_by) == ("emoji-dit", "afterimage")
    assert client.models.retrieve(model.id).defaults["num_inference_steps"] == 50
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("some/other")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("request_fields", "param", "code"),
    [
        ({"prompt": "no such thing"}, "prompt", "unknown_label"),
        ({"n": 11}, "n", "invalid_value"),
        ({"size": "1x1"}, "size", "invalid_value"),
        ({"response_format": "url"}, "response_format", "invalid_value"),
        ({"background": "transparent"}, "background", "invalid_value"),
        ({"partial_images": 1}, "partial_images", "invalid_value"),
        ({"extra_body": {"seeds": 1}}, "seeds", "unknown_field"),
        (
            {"extra_body": {"cache_backend": "cache_dit", "cache_config": {"Fn_compute_block": 1}}},
            "cache_config.Fn_compute_block",
            "invalid_value",
        ),
    ],
)
def test_what_the_request_gets_wrong(client: OpenAI, request_fields: dict, param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": "fox face", **request_fields})
    error = caught.value
    assert (error.status_code, error.param, error.type) == (400, param, "invalid_request_error")
    assert error.code == code
    assert error.message
    assert error.request_id


def test_another_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(model="gpt-image-1", prompt="fox face")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "emoji-dit" in caught.value.message


@contextmanager
def full(server: Server) -> Iterator[Callable[[], None]]:
    """Holds the server's worker and its only place in the queue; the value lets them go."""
    streams = []

    def let_go() -> None:
        for stream in streams:
            stream.close()
        for sign in ("afterimage_running_rows 0", "afterimage_queue_depth 0"):
            wait_for(server, sign)

    for sign in ("afterimage_running_rows 2", "afterimage_queue_depth 1"):
        streams.append(client_of(server).images.generate(prompt="rocket", stream=True, extra_body=LONG))
        wait_for(server, sign)
    try:
        yield let_go
    finally:
        let_go()


def has(server: Server, line: str) -> bool:
    """Whether the metrics page has this line."""
    return f"\n{line}\n" in server.get("/metrics")[1]


def wait_for(server: Server, line: str) -> None:
    server.wait_until(line, lambda: has(server, line))


def test_a_full_queue_is_a_rate_limit(
    start_server: Callable[..., AbstractContextManager[Server]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_server(*NARROW) as server:
        request = {"prompt": "fox face", "extra_body": {"seed": 1, "num_inference_steps": 2}}
        with full(server) as let_go:
            with pytest.raises(openai.RateLimitError) as caught:
                client_of(server, max_retries=0).images.generate(**request)
            assert (caught.value.code, caught.value.status_code) == ("queue_full", 429)
            assert int(caught.value.response.headers["retry-after"]) >= 1

            waits: list[float] = []
            told: list[str | None] = []

            def sleep(seconds: float) -> None:
                """There is room again when the client comes back."""
                waits.append(seconds)
                monkeypatch.undo()
                let_go()

            monkeypatch.setattr("time.sleep", sleep)
            hooks = {"response": [lambda response: told.append(response.headers.get("retry-after"))]}
            patient = client_of(server, max_retries=1, http_client=openai.DefaultHttpxClient(event_hooks=hooks))
            assert len(patient.images.generate(**request).data) == 1
            assert ([str(int(seconds)) for seconds in waits], told[1:]) == (told[:1], [None])
        assert has(server, 'afterimage_requests_total{status="rejected"} 2')


@pytest.fixture
def broken_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose every weight is NaN."""
    folder = tmp_path / "broken"
    for file in (file for file in tiny_model.rglob("*") if file.is_file()):
        copy = folder / file.relative_to(tiny_model)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = bytearray(file.read_bytes())
        if file.suffix == ".safetensors":
            start = 8 + struct.unpack_from("<Q", content)[0]
            kinds = {tensor["dtype"] for name, tensor in json.loads(content[8:start]).items() if name != "__metadata__"}
            assert kinds == {"F32"}
            content[start:] = struct.pack("<f", float("nan")) * ((len(content) - start) // 4)
        copy.write_bytes(content)
    return folder


def test_a_failed_job_is_not_tried_again(
    start_server: Callable[..., AbstractContextManager[Server]], broken_model: Path
) -> None:
    with start_server("--model", str(broken_model)) as server:
        client = client_of(server, max_retries=5)
        with pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="class:1", extra_body={"num_inference_steps": 2})
        assert (caught.value.code, caught.value.response.headers["x-should-retry"]) == ("job_failed", "false")
        assert "not finite" in caught.value.message
        assert has(server, 'afterimage_requests_total{status="failed"} 1')

        with pytest.raises(openai.APIError) as caught:
            list(client.images.generate(prompt="class:1", stream=True, extra_body={"num_inference_steps": 2}))
        assert (caught.value.code, caught.value.type) == ("job_failed", "server_error")
        assert has(server, 'afterimage_requests_total{status="failed"} 2')


def test_the_asynchronous_client(server: Server) -> None:
    async def pictures() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused") as client:
            bodies = [{"seed": seed, "num_inference_steps": 4} for seed in range(3)]
            made = await asyncio.gather(*(client.images.generate(prompt="key", extra_body=body) for body in bodies))
            stream = await client.images.generate(prompt="key", stream=True, extra_body=bodies[0])
            events = [event async for event in stream]
            assert [event.type for event in events] == ["image_generation.completed"]
            assert events[0].b64_json == made[0].data[0].b64_json
            with pytest.raises(openai.BadRequestError):
                await client.images.generate(prompt="")
            return [answer.data[0].b64_json for answer in made]

    # In a thread of its own: browser tests before this one leave an event loop in the main thread.
    with ThreadPoolExecutor(1) as thread:
        assert len(set(thread.submit(asyncio.run, pictures()).result())) == 3


def test_a_client_that_leaves_frees_its_place(client: OpenAI, server: Server) -> None:
    stream = client.images.generate(prompt="rocket", stream=True, extra_body=LONG)
    wait_for(server, "afterimage_running_rows 2")
    stream.close()
    wait_for(server, "afterimage_running_rows 0")
