"""codespell over everything that people read."""

import subprocess
import sys

from conftest import ROOT
from documents import all_documents

# Read by people, too. openapi.json and the snapshots of the help texts have what the code says to its users.
OTHERS = ["config", "deploy", "docs", "justfile", "Dockerfile", "crates/server/src/cli/snapshots"]
OTHERS += ["crates/server/src/playground/assets"]
# Not slips: names in code.
NAMES = "ans,crate,fo,nd,te"


def test_spelling() -> None:
    files = [document.name for document in all_documents()]
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", NAMES]
    command += ["--skip", "*.png", *files, *OTHERS]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
