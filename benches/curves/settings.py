"""The settings that are measured: in every panel one thing is turned, on a line for each way to fill reused steps."""

import json
from dataclasses import dataclass, field

TAYLOR_1 = {"enable_taylorseer": True, "taylorseer_order": 1}
TAYLOR_2 = {"enable_taylorseer": True, "taylorseer_order": 2}
# Always reuses, as far as limits allow.
ALWAYS = {"residual_diff_threshold": 1.0}
WARM_UP = {"max_warmup_steps": 2}


@dataclass(frozen=True)
class Line:
    """Settings that differ in one thing; `points` has what each adds, by what is written beside it."""

    panel: str
    name: str
    points: dict[str, dict] = field(hash=False)
    base: dict = field(default_factory=dict, hash=False)
    backend: str = "cache_dit"

    def row(self, label: str) -> str:
        """The setting's name in reports."""
        return f"{self.panel}: {self.name} {label}"


@dataclass(frozen=True)
class Panel:
    """Lines in one frame."""

    title: str
    lines: list[Line]


def values(key: str, numbers: list) -> dict[str, dict]:
    """A point per number."""
    return {str(number): {key: number} for number in numbers}


def predictors(title: str, points: dict[str, dict], base: dict) -> Panel:
    """The same points with residuals repeated, and predicted in two ways."""
    names = {"repeated": {}, "TaylorSeer, order 1": TAYLOR_1, "TaylorSeer, order 2": TAYLOR_2}
    return Panel(title, [Line(title, name, points, {**WARM_UP, **base, **keys}) for name, keys in names.items()])


def masks(title: str) -> Panel:
    """Steps that are fixed beforehand."""
    policies = {policy: {"scm_steps_mask_policy": policy} for policy in ["slow", "medium", "fast", "ultra"]}
    base = {**WARM_UP, **TAYLOR_1}
    return Panel(
        title,
        [
            Line(title, "compared as well", policies, {"residual_diff_threshold": 0.24, **base}),
            Line(title, "static", policies, {"scm_steps_policy": "static", **base}),
        ],
    )


def backends(title: str) -> Panel:
    """Everything but DBCache, and that for comparison."""
    thresholds = values("residual_diff_threshold", [0.1, 0.15, 0.2, 0.3])
    return Panel(
        title,
        [
            Line(title, "DBCache, TaylorSeer, at most 2 in a row", thresholds, {**WARM_UP, **TAYLOR_1, "max_continuous_cached_steps": 2}),
            Line(title, "TeaCache", values("rel_l1_thresh", [0.04, 0.07, 0.14, 0.28]), backend="tea_cache"),
            Line(title, "MagCache", values("mag_threshold", [0.03, 0.06, 0.12, 0.24]), backend="mag_cache"),
        ],
    )


PANELS = [
    predictors("residual_diff_threshold", values("residual_diff_threshold", [0.08, 0.12, 0.16, 0.24, 0.4]), {"max_continuous_cached_steps": 3}),
    predictors("max_continuous_cached_steps", values("max_continuous_cached_steps", [1, 2, 3, 5]), ALWAYS),
    predictors("max_warmup_steps", values("max_warmup_steps", [1, 2, 4, 8]), {"residual_diff_threshold": 0.24, "max_continuous_cached_steps": 2}),
    predictors("Fn_compute_blocks", values("Fn_compute_blocks", [1, 2, 4, 8]), {"residual_diff_threshold": 0.24, "max_continuous_cached_steps": 2}),
    masks("scm_steps_mask_policy"),
    backends("backends"),
]


def toml() -> str:
    """All of them, as `bench --configs` reads them."""
    tables = []
    for line in (line for panel in PANELS for line in panel.lines):
        for label, keys in line.points.items():
            config = ", ".join(f"{key} = {json.dumps(value)}" for key, value in {**line.base, **keys}.items())
            name = json.dumps(line.row(label))
            tables.append(f'[[setting]]\nname = {name}\ncache_backend = "{line.backend}"\ncache_config = {{ {config} }}\n')
    return "\n".join(tables)
