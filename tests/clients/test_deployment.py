"""The files in deploy/ and config/, read as the ones they are for would read them."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import PROGRAM, ROOT

# Seconds that answers may take to be carried away after the drain time.
FLUSH_SECONDS = 5
COMPOSE_FILES = ["deploy/docker-compose.yml", "deploy/observability/docker-compose.yml"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def read(path: str) -> list[dict]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all((ROOT / path).read_text()))


def seconds(duration: str) -> int:
    """A duration such as 2m or 90s."""
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def configuration(*arguments: str, environment: dict[str, str]) -> dict:
    """What a server with these variables and this command has in force; a warning is a failure."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AFTERIMAGE_")}
    command = [str(PROGRAM), *(arguments or ["serve"]), "--print-config"]
    run = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    settings = tomllib.loads(run.stdout)
    return settings["limits"] | {name: value for name, value in settings.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_a_stop_by_compose_loses_nothing(path: str) -> None:
    service = read(path)[0]["services"]["afterimage"]
    in_force = configuration(environment=service["environment"])
    assert in_force["drain-timeout"] + FLUSH_SECONDS < seconds(service["stop_grace_period"])
    assert in_force["drain-timeout"] > in_force.get("request-timeout", 0)


def test_a_stop_by_kubernetes_loses_nothing() -> None:
    deployment, service = read("deploy/kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = {entry["name"]: entry.get("value", "sk-a") for entry in container["env"]}
    in_force = configuration(environment=environment)
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pre_stop + in_force["drain-timeout"] + FLUSH_SECONDS < pod["terminationGracePeriodSeconds"]
    assert in_force["request-timeout"] < in_force["drain-timeout"]
    assert pod["enableServiceLinks"] is False
    # The Service finds the pods, and its port is the server's.
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert container["ports"][0]["containerPort"] == in_force["port"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda path: path.name)
def test_examples_drain_for_longer_than_a_request_may_take(path: Path) -> None:
    limits = tomllib.loads(path.read_text())["limits"]
    assert limits["drain-timeout"] > limits.get("request-timeout", 0)


def test_workflows_run_what_developers_run() -> None:
    assert {path.name for path in WORKFLOWS} >= {"ci.yml", "release.yml"}
    steps = []
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text())["jobs"].values()
        assert all("timeout-minutes" in job for job in jobs), path
        steps += [step for job in jobs for step in job["steps"]]
    assert any(step.get("run") == ".ci/run" for step in steps)
    assert any("cargo-deny-action" in step.get("uses", "") for step in steps)
    # Every action by a version, never by a branch.
    actions = [step["uses"] for step in steps if "uses" in step]
    assert all(action.split("@")[1][0] == "v" and action.split("@")[1][1].isdigit() for action in actions), actions


def test_issue_templates_can_be_filled_in() -> None:
    templates = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(templates) >= 3
    for path in templates:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys(), path
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids)), path
        assert all(field["attributes"]["label"] for field in form["body"]), path
