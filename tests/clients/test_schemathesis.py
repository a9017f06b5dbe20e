"""Schemathesis: generated requests, good and bad, against what the OpenAPI document promises.

Every answer must have a documented status, the documented headers and content type, and a body of the documented
schema; no request may end in a server error, and none that breaks the schema may be served. Jobs are followed along
the document's links.
"""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from json import loads
from pathlib import Path

import pytest
from conftest import Server

HERE = Path(__file__).resolve().parent


def test_every_answer_is_as_documented(
    start_server: Callable[..., AbstractContextManager[Server]], tmp_path: Path
) -> None:
    # Nothing shall be refused because there is too much of it, and nobody fetches the jobs that are left.
    flags = ["--max-jobs", "65536", "--max-queued-requests", "10000", "--drain-timeout", "1"]
    with start_server(*flags) as server:
        command = ["-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        run = subprocess.run(
            [sys.executable, *command, f"{server.url}/openapi.json", "--no-color"],
            cwd=tmp_path,  # it leaves a cache behind
            env={**os.environ, "PYTHONPATH": str(HERE)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        status, _ = server.get("/health/ready")
        assert status == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "FANTASY"])
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/models", "/health", "/metrics", "/nowhere"])
def test_unusual_methods_get_the_error_shape(server: Server, method: str, path: str) -> None:
    request = urllib.request.Request(server.url + path, method=method)
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        response = error
    body = response.read()
    assert response.headers["x-request-id"]
    if response.status == 405:
        assert method not in response.headers["allow"].split(",")
    else:
        assert response.status == (404 if path == "/nowhere" else 200), body
        assert path == "/nowhere" or method == "HEAD"
    if method != "HEAD":
        assert set(loads(body)["error"]) == {"message", "type", "param", "code"}
