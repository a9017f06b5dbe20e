"""LiteLLM in front of the server: the library, and the proxy with its health check."""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import DEADLINE_SECONDS, ROOT, Server, answers, free_address, wait_until

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Reads any prompt, which the embedded model does not: LiteLLM's health check sends "test from litellm".
TEXT_MODEL = ROOT / "tests" / "fixtures" / "pixart-sigma" / "model"
MASTER_KEY = "sk-proxy-0123456789abcdef0123456789abcdef"
QUICK = {"seed": 3, "num_inference_steps": 2}


def litellm(url: str, **call: Any) -> dict[str, Any]:
    """`litellm.image_generation` in a process of its own: importing it changes logging and event loops."""
    program = (
        "import json, litellm, sys; "
        "answer = litellm.image_generation(**json.loads(sys.argv[1])); "
        "print(answer.model_dump_json())"
    )
    call = {"api_base": f"{url}/v1", "api_key": "unused", **call}
    run = subprocess.run([sys.executable, "-c", program, json.dumps(call)], env=ENV, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


# The prices of other people's models are part of the package, too; nothing is fetched.
ENV = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": MASTER_KEY}


def test_the_library(server: Server) -> None:
    call = {"model": "openai/emoji-dit", "prompt": "red apple", "n": 2, "size": "64x64", "user": "someone"}
    answer = litellm(server.url, **call, **QUICK, cache_backend="cache_dit")
    pictures = [base64.b64decode(image["b64_json"]) for image in answer["data"]]
    assert len(pictures) == 2
    assert all(picture.startswith(PNG_SIGNATURE) for picture in pictures)
    alone = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused").images.generate(
        prompt="red apple", n=2, extra_body={**QUICK, "cache_backend": "cache_dit"}
    )
    # The fields that are not OpenAI's have arrived: it is the same picture.
    assert [image["b64_json"] for image in answer["data"]] == [image.b64_json for image in alone.data]


@pytest.fixture
def proxy(start_server: Callable[..., AbstractContextManager[Server]], tmp_path: Path) -> Iterator[str]:
    """The address of a LiteLLM proxy with the embedded model and a text-to-image model behind it."""
    with start_server() as emoji, start_server("--model", str(TEXT_MODEL), "--served-model-name", "tiny") as text:
        config = {
            "model_list": [
                deployment("emoji", f"{emoji.url}/v1", "openai/emoji-dit"),
                deployment("any-prompt", f"{text.url}/v1", "openai/tiny"),
            ]
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        host, port = free_address().split(":")
        command = [str(Path(sys.executable).parent / "litellm"), "--config", str(tmp_path / "config.yaml")]
        command += ["--host", host, "--port", port]
        with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=ENV, stdout=log, stderr=log) as process:
            try:
                url = f"http://{host}:{port}"
                wait_until("the proxy is there", lambda: proxy_answers(url, process, tmp_path / "log"))
                yield url
            finally:
                process.terminate()
                process.wait(DEADLINE_SECONDS)


def proxy_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return answers(f"{url}/health/liveliness")


def deployment(name: str, api_base: str, model: str) -> dict[str, Any]:
    parameters = {"model": model, "api_base": api_base, "api_key": "unused"}
    return {"model_name": name, "litellm_params": parameters, "model_info": {"mode": "image_generation"}}


def test_the_proxy(proxy: str) -> None:
    client = openai.OpenAI(base_url=f"{proxy}/v1", api_key=MASTER_KEY, max_retries=0)
    request = {"model": "emoji", "prompt": "red apple", "extra_body": {**QUICK, "cache_backend": "cache_dit"}}
    first, second = (client.images.generate(**request).data[0].b64_json for _ in range(2))
    assert base64.b64decode(first).startswith(PNG_SIGNATURE)
    assert first == second

    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="emoji", prompt="red apple", extra_body={"num_inference_steps": 0})
    assert "num_inference_steps" in caught.value.message

    # It asks every model for a picture of "test from litellm". For a model of text that is a prompt like any other.
    key = {"Authorization": f"Bearer {MASTER_KEY}"}
    request = urllib.request.Request(f"{proxy}/health?model=any-prompt", headers=key)
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        health = json.load(response)
    assert (health["healthy_count"], health["unhealthy_count"]) == (1, 0), health
