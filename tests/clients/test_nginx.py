"""nginx in front of the server, as deploy/nginx.conf shows it: a path prefix, default buffering."""

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from conftest import (
    DEADLINE_SECONDS,
    ROOT,
    Server,
    answers,
    free_address,
    required_program,
    wait_until,
)
from openai import OpenAI
from playground import GENERATIONS, Visit

PREFIX = "/images"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Two rows at a time: one guided picture runs, and the next request waits.
NARROW = ("--max-batch-rows", "2")
LONG = {"prompt": "rocket", "seed": 1, "n": 10, "num_inference_steps": 200}


class Proxied:
    """A server, and the address of the nginx before it."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The open answer."""
        request = urllib.request.Request(self.url + path, data=json.dumps(body).encode())
        return urllib.request.urlopen(request, timeout=DEADLINE_SECONDS)


@contextmanager
def nginx(server: Server, folder: Path, site: str) -> Iterator[str]:
    """An nginx with the `server` block of deploy/nginx.conf, or one made of it; the address of the prefix."""
    address = free_address()
    site = site.replace("http://127.0.0.1:8080", server.url).replace("listen 80;", f"listen {address};")
    assert server.url in site
    assert address in site
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    # Everything around it is nginx's default, except where it writes.
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder / 'pid'}; error_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{ access_log off; {paths} {site} }}\n"
    )
    command = [
        required_program("nginx"),
        "-p",
        str(folder),
        "-c",
        str(folder / "nginx.conf"),
    ]
    with subprocess.Popen(command) as process:
        try:
            url = f"http://{address}{PREFIX}"
            wait_until("nginx is there", lambda: answers(f"{url}/health/ready"))
            yield url
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


SITE = (ROOT / "deploy" / "nginx.conf").read_text()
# Without the slash at its end, nginx leaves the prefix in the path.
KEEPING_THE_PREFIX = SITE.replace("http://127.0.0.1:8080/;", "http://127.0.0.1:8080;")


@pytest.fixture(params=[SITE, KEEPING_THE_PREFIX], ids=["prefix taken away", "prefix kept"])
def proxied(
    start_server: Callable[..., AbstractContextManager[Server]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Proxied]:
    flags = ["--root-path", PREFIX, "--output-dir", str(tmp_path / "pictures"), *NARROW]
    with start_server(*flags) as server, nginx(server, tmp_path, request.param) as url:
        yield Proxied(server, url)


def test_a_client_behind_a_prefix(proxied: Proxied) -> None:
    client = OpenAI(base_url=f"{proxied.url}/v1", api_key="unused", max_retries=0)
    request = {
        "prompt": "red apple",
        "extra_body": {"seed": 3, "num_inference_steps": 2},
    }
    image = client.images.generate(**request).data[0]
    assert base64.b64decode(image.b64_json).startswith(PNG_SIGNATURE)
    # The URL leads through the proxy.
    assert image.url.startswith(f"{proxied.url}/v1/images/files/")
    with urllib.request.urlopen(image.url, timeout=DEADLINE_SECONDS) as picture:
        assert picture.read().startswith(PNG_SIGNATURE)

    with proxied.post("/v1/images/jobs", {"prompt": "rocket", "num_inference_steps": 1}) as accepted:
        location = urljoin(accepted.url, accepted.headers["location"])
    assert location.startswith(f"{proxied.url}/v1/images/jobs/")
    assert answers(location)


def test_a_stream_is_not_held_back(proxied: Proxied) -> None:
    with proxied.post(GENERATIONS, {**LONG, "stream": True, "progress": True}) as first:
        proxied.server.wait_until(
            "the first request runs",
            lambda: "\nafterimage_running_rows 2\n" in proxied.server.get("/metrics")[1],
        )
        # A request that waits says so in far fewer bytes than nginx keeps back, and then nothing for long.
        second = {
            "prompt": "red apple",
            "num_inference_steps": 1,
            "stream": True,
            "progress": True,
        }
        with proxied.post(GENERATIONS, second) as waiting:
            line = next(line for line in waiting if line.startswith(b"data: "))
            assert json.loads(line.removeprefix(b"data: ")).items() >= {"step": 0, "total": 1}.items()
            assert "\nafterimage_running_rows 2\n" in proxied.server.get("/metrics")[1]
        assert first.status == 200


def test_pages_behind_a_prefix(proxied: Proxied) -> None:
    """Every address on the pages stays below the prefix and is there."""
    for page in ("/", "/docs"):
        with urllib.request.urlopen(proxied.url + page, timeout=DEADLINE_SECONDS) as response:
            links = re.findall(r'(?:href|src)="([^"#]+)"', response.read().decode())
        assert links or page == "/docs"
        for link in links:
            address = urljoin(proxied.url + page, link)
            assert address.startswith(f"{proxied.url}/") or address.startswith("https://"), link
            assert address.startswith("https://") or answers(address), link


def test_the_playground_behind_a_prefix(proxied: Proxied, visit: Callable[..., Visit]) -> None:
    person = visit(f"{proxied.url}/")
    person.steps(2)
    person.run()
    assert person.requests
    assert all(request.url == proxied.url + GENERATIONS for request in person.requests)
