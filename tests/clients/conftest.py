"""Servers under test. Each test file speaks to them with one client."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "afterimage"
# Where `run` installs npm packages.
NODE_PACKAGES = PROGRAM.parents[1] / "clients-npm"
# Longest wait for something that must happen.
DEADLINE_SECONDS = 120


class Server:
    """A running `afterimage serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=DEADLINE_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Looks again and again until `is_so`."""
        wait_until(what, is_so)


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    """Looks again and again until `is_so`."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < DEADLINE_SECONDS, f"gave up waiting until {what}"
        time.sleep(0.05)


def free_address() -> str:
    """An address that another program can listen on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def answers(url: str) -> bool:
    """Whether a server of somebody else's is there and well."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as response:
            return response.status == 200
    except OSError:
        return False


@contextmanager
def running_server(*flags: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server on a free port that is ready, ended with SIGTERM."""
    command = [str(PROGRAM), "serve", "--port", "0", "--log-filter", "warn", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line.startswith("listening on "), line
            server = Server(process, line.removeprefix("listening on "))
            server.wait_until("it is ready", lambda: server.get("/health/ready")[0] == 200)
            yield server
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


@pytest.fixture
def start_server() -> Callable[..., AbstractContextManager[Server]]:
    """Starts a server with flags of its own: `with start_server("--flag", "value") as server`."""
    return running_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of all tests that leave no traces. It has the program's default settings."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of random weights that knows nothing about itself."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    subprocess.run([str(PROGRAM), "random-model", "--like", "tiny-dit", str(folder)], check=True)
    return folder


def required_program(name: str) -> str:
    """Path of an installed program; the test is skipped where there is none."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("AFTERIMAGE_REQUIRE_PROGRAMS") == "1":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of pages."""
    path = required_program("chromium")
    with sync_playwright() as playwright:
        # Containers have a small /dev/shm.
        browser = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., object]]:
    """Opens the page; at the end the browser must not have complained."""
    from playground import DESKTOP, Visit  # which need this file themselves

    visits = []

    def open_page(
        url: str = server.url, routes: dict[str, Callable[[Route], None]] | None = None, **context: object
    ) -> Visit:
        page = browser.new_context(**{"viewport": DESKTOP, **context}).new_page()
        for path, answer in (routes or {}).items():
            page.route(path, answer)
        visits.append(Visit(page, url))
        return visits[-1]

    yield open_page
    for one in visits:
        one.page.context.close()
    assert [problem for one in visits for problem in one.problems] == []
