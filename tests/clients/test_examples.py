"""The examples in the documents are run as they stand, against a server with default settings.

* Shell (also a block without a language): run by bash. curl is the real one and fails on an error status; `stand_in.py`
  takes the place of what does too much (a build, a container, a server) and checks what it is asked.
* Python: run, one block after the other.
* JSON with a `prompt` is a request that must be accepted. Other JSON after a request is what the response must contain:
  the same values, `"..."` standing for whatever is left out.
* TOML and JSON otherwise: must be readable. Text and PromQL are not run; test_prometheus.py has the shipped queries.
"""

import json
import os
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_SECONDS, PROGRAM, ROOT, Server, required_program
from documents import Block, Document, all_documents
from PIL import Image

ADDRESS = "http://127.0.0.1:8080"
ENDPOINT = "/v1/images/generations"
STAND_INS = ["afterimage", "cargo", "docker", "just"]
# What the examples of the jobs' chapter call the job that they ask for.
JOB = "JOB_ID"
# Recipes of hours, with packages that are not installed here.
NOT_RUN = ["models/training/README.md", "tests/reference/README.md"]
ELISION = "..."
# Distances differ a little between instruction sets.
TOLERANCE = 0.02

DOCUMENTS = [document for document in all_documents() if document.blocks and document.name not in NOT_RUN]


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(server.url + path, data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        return json.load(response)


class Shell:
    """Runs scripts in a folder of their own, with stand-ins on the PATH."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder / "work"
        programs = folder / "programs"
        programs.mkdir()
        for name in STAND_INS:
            command = f"{sys.executable} {Path(__file__).parent / 'stand_in.py'} {name}"
            write_script(programs / name, f'exec {command} "$@"')
        # This repository's own scripts are run by others.
        for script in ("tests/clients/run", "tests/structure/check", "benches/against_pytorch/run", ".ci/run"):
            write_script(self.folder / script, f"test -x {ROOT / script}")
        write_script(self.folder / "deploy/cuda/toolkit", f"test -f {ROOT / 'deploy/cuda/toolkit'}")
        (folder / ".curlrc").write_text("fail-with-body\nshow-error\n")
        self.env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CURL_HOME": str(folder)}
        self.env |= {"EXAMPLES_ROOT": str(ROOT), "EXAMPLES_AFTERIMAGE": str(PROGRAM.resolve())}

    def run(self, script: str) -> str:
        if JOB in script:
            job = post(self.server, "/v1/images/jobs", {"prompt": "rocket", "num_inference_steps": 1})
            script = script.replace(JOB, job["id"])
        script = script.replace(ADDRESS, self.server.url)
        command = [required_program("bash"), "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def shell(server: Server, tmp_path: Path) -> Shell:
    return Shell(server, tmp_path)


def faults(shown: Any, found: Any, where: str = "") -> list[str]:
    """Where a response is not what a document shows of it."""
    if shown == ELISION:
        return []
    if isinstance(shown, dict) and isinstance(found, dict):
        missing = [f"{where}.{key} is missing" for key in shown if key != ELISION and key not in found]
        parts = [(key, shown[key], found[key]) for key in shown if key in found]
        return missing + [fault for key, a, b in parts for fault in faults(a, b, f"{where}.{key}")]
    if isinstance(shown, list) and isinstance(found, list):
        is_cut = ELISION in shown
        shown = shown[: shown.index(ELISION)] if is_cut else shown
        if len(shown) > len(found) or (len(shown) < len(found) and not is_cut):
            return [f"{where} has {len(found)} entries"]
        pairs = enumerate(zip(shown, found, strict=False))
        return [fault for index, (a, b) in pairs for fault in faults(a, b, f"{where}[{index}]")]
    if isinstance(shown, float) and isinstance(found, float):
        return [] if found == pytest.approx(shown, rel=TOLERANCE) else [f"{where} is {found}"]
    return [] if shown == found else [f"{where} is {json.dumps(found)}"]


class Reader:
    """Goes through a document and does what it says."""

    def __init__(self, shell: Shell) -> None:
        self.run = shell.run
        self.server = shell.server
        self.python: dict[str, Any] = {}
        self.response: dict[str, Any] | None = None

    def read(self, block: Block) -> None:
        match block.language.split(" ")[0]:
            case "" | "sh":
                self.shell(block.text)
            case "json":
                self.json(json.loads(block.text))
            case "python":
                exec(block.text.replace(ADDRESS, self.server.url), self.python)  # noqa: S102
            case "toml":
                tomllib.loads(block.text)
            case other:
                assert other in ("text", "promql", "nginx", "yaml"), f"nobody knows how to run {other}"

    def shell(self, script: str) -> None:
        output = self.run(script)
        if output.startswith("{"):
            self.response = json.loads(output)

    def json(self, shown: dict[str, Any]) -> None:
        if "prompt" in shown:
            self.response = post(self.server, ENDPOINT, shown)
            return
        if self.response is not None:
            assert not faults(shown, self.response)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_examples_do_what_they_say(document: Document, shell: Shell) -> None:
    reader = Reader(shell)
    for block in document.blocks:
        try:
            reader.read(block)
        except Exception as error:
            error.add_note(f"{document.name}:{block.line}")
            raise


def test_the_picture_in_the_readme_is_the_one_of_its_command(shell: Shell) -> None:
    command = next(block.text for block in Document(ROOT / "README.md").blocks if "red-apple.png" in block.text)
    shell.run(command)
    made = Image.open(shell.folder / "red-apple.png").convert("RGB")
    shown = Image.open(ROOT / "docs/images/red-apple.png").convert("RGB").resize(made.size, Image.Resampling.NEAREST)
    # Not bit for bit: instruction sets round differently.
    differences = [abs(a - b) for a, b in zip(made.tobytes(), shown.tobytes(), strict=True)]
    assert max(differences) <= 2


def test_what_is_compared() -> None:
    """A response that is not what was shown is found."""
    found = {"a": 1, "b": [4, 6, 8], "c": {"4": 0.0731, "5": 0.14}, "d": "x"}
    for good in [{}, {"a": 1}, {"b": [4, "..."]}, {"b": [4, 6, 8]}, {"c": {"4": 0.073, "...": "..."}}, {"d": "..."}]:
        assert not faults(good, found), good
    for bad in [{"a": 2}, {"e": 1}, {"b": [4]}, {"b": [4, 7, "..."]}, {"c": {"4": 0.08}}, {"c": {"6": 1.0}}]:
        assert faults(bad, found), bad
