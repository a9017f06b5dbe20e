"""A real Prometheus scrapes the server, and promtool checks the rules that are shipped."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_SECONDS, ROOT, Server, free_address, required_program

OBSERVABILITY = ROOT / "deploy" / "observability"
HIT_RATE = 'sum(afterimage_steps_total{decision="cached"}) / sum(afterimage_steps_total)'
REQUESTS: list[dict[str, Any]] = [
    {"cache_backend": "cache_dit", "n": 2},
    {"cache_backend": "cache_dit", "cache_config": {"residual_diff_threshold": 0.1}},
    {"cache_backend": "tea_cache"},
    {},
]


def generate(server: Server, **fields: Any) -> dict[str, Any]:
    body = {"prompt": "red apple", "seed": 3, "num_inference_steps": 12, **fields}
    request = urllib.request.Request(f"{server.url}/v1/images/generations", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        return json.load(response)


def cached_and_all_passes(response: dict[str, Any]) -> tuple[int, int]:
    """What the response says of its passes; the embedded model has one block list and one branch."""
    cache = response["cache"]
    cached = sum(len(context["cached_steps"]) for image in cache["images"] for context in image["contexts"])
    return cached, cache["steps"] * len(cache["images"])


@contextmanager
def prometheus(folder: Path, server: Server) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """A Prometheus with the shipped rules that scrapes this server; gives a function that evaluates a query."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(OBSERVABILITY / "alerts.yml")],
        "scrape_configs": [
            {"job_name": "afterimage", "static_configs": [{"targets": [server.url.removeprefix("http://")]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    address = free_address()

    def query(text: str) -> list[dict[str, Any]]:
        url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as response:
                return json.load(response)["data"]["result"]
        except OSError:
            return []

    command = [required_program("prometheus"), f"--web.listen-address={address}", "--log.level=warn"]
    command += [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with subprocess.Popen(command) as process:
        try:
            yield query
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


def test_the_hit_rate_is_what_the_responses_said(
    start_server: Callable[..., AbstractContextManager[Server]], tmp_path: Path
) -> None:
    with start_server() as server, prometheus(tmp_path, server) as query:
        passes = [cached_and_all_passes(generate(server, **fields)) for fields in REQUESTS]
        cached, total = (sum(column) for column in zip(*passes, strict=True))

        def scraped() -> bool:
            steps = query("sum(afterimage_steps_total)")
            return bool(steps) and float(steps[0]["value"][1]) == total

        server.wait_until("Prometheus has scraped all steps", scraped)
        assert cached > 0
        assert float(query(HIT_RATE)[0]["value"][1]) == pytest.approx(cached / total, rel=1e-12)
        assert float(query("afterimage_images_total")[0]["value"][1]) == 5
        server.wait_until("the recording rule has a value", lambda: bool(query("afterimage:hit_rate:5m")))


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    dashboard = json.loads((OBSERVABILITY / "grafana/dashboards/afterimage.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    promtool = required_program("promtool")
    rules = [
        {"record": f"q{index}", "expr": text.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for index, text in enumerate(queries)
    ]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", str(tmp_path / "queries.yml")], check=True)
    assert len(queries) > 20


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_the_alert_rules_fire_when_they_should(command: list[str]) -> None:
    subprocess.run([required_program("promtool"), *command], cwd=OBSERVABILITY, check=True)
