"""curl, with the commands of the README."""

import base64
import json
import subprocess

from conftest import Server, required_program

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def curl(*arguments: str) -> str:
    command = [required_program("curl"), "--silent", "--show-error", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_picture(server: Server) -> None:
    request = '{"prompt": "red apple", "seed": 1, "num_inference_steps": 2}'
    answer = json.loads(curl(f"{server.url}/v1/images/generations", "-d", request))
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(PNG_SIGNATURE)


def test_a_stream(server: Server) -> None:
    request = '{"prompt": "red apple", "num_inference_steps": 4, "stream": true, "partial_images": 1}'
    lines = curl("--no-buffer", f"{server.url}/v1/images/generations", "-d", request).splitlines()
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert events == ["image_generation.partial_image", "image_generation.completed"]


def test_an_error_names_its_field(server: Server) -> None:
    url, request = f"{server.url}/v1/images/generations", '{"prompt": "red apple", "n": 0}'
    *body, status = curl(url, "-d", request, "-w", "\n%{http_code}").splitlines()
    assert (status, json.loads("\n".join(body))["error"]["param"]) == ("400", "n")
