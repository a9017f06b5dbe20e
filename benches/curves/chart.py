"""Panels of lines as SVG: speed against likeness."""

from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, COLUMNS = 330, 250, 3
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 64, 34
# Distinct in light, in dark and without colour vision.
COLOURS = ["#0a7d5a", "#c2571a", "#6a5acd"]
MARKS = ["circle", "square", "diamond"]
STYLE = (
    "text { font: 11px sans-serif; fill: #24292f } .title { font-weight: bold } .axis { stroke: #8c959f; stroke-width: 1 } "
    ".grid { stroke: #8c959f; stroke-opacity: 0.25 } .line { fill: none; stroke-width: 1.6 } rect.ground { fill: #ffffff } "
    "@media (prefers-color-scheme: dark) { text { fill: #d0d7de } rect.ground { fill: #0d1117 } }"
)


@dataclass(frozen=True)
class Line:
    """A name and its points: times fewer blocks, decibels, what is written beside it."""

    name: str
    points: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Panel:
    """Lines in one frame."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Scale:
    """From figures to places in a panel; the same in all panels."""

    fastest: float
    least: float
    most: float

    def x(self, speedup: float) -> float:
        return LEFT + (speedup - 1) / (self.fastest - 1) * (WIDTH - LEFT - RIGHT)

    def y(self, decibels: float) -> float:
        return TOP + (self.most - decibels) / (self.most - self.least) * (HEIGHT - TOP - BOTTOM)


def svg(panels: list[Panel]) -> str:
    """All panels, side by side."""
    points = [point for panel in panels for line in panel.lines for point in line.points]
    scale = Scale(
        fastest=-(-max(speedup for speedup, _, _ in points) * 2 // 1) / 2,
        least=min(decibels for _, decibels, _ in points) // 5 * 5,
        most=-(-max(decibels for _, decibels, _ in points) // 5) * 5,
    )
    width, height = WIDTH * COLUMNS, HEIGHT * -(-len(panels) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Speed against likeness">',
        f'<style>{STYLE}</style><rect class="ground" width="{width}" height="{height}"/>',
    ]
    for index, panel in enumerate(panels):
        place = f"translate({index % COLUMNS * WIDTH} {index // COLUMNS * HEIGHT})"
        parts += [f'<g transform="{place}">', *frame(panel, scale)]
        labelled: list[tuple[float, float, str]] = []
        for number, line in enumerate(panel.lines):
            parts += drawn(line, number, scale, labelled)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def frame(panel: Panel, scale: Scale) -> list[str]:
    """Title, axes and their numbers."""
    parts = [f'<text class="title" x="{LEFT}" y="16">{escape(panel.title)}</text>']
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for decibels in range(int(scale.least), int(scale.most) + 1, 5):
        y = scale.y(decibels)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{decibels}</text>')
    for half in range(2, int(scale.fastest * 2) + 1):
        x = scale.x(half / 2)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{half / 2:g}</text>')
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">times fewer blocks</text>')
    parts.append(f'<text x="4" y="{TOP - 6}">dB</text>')
    return parts


def drawn(line: Line, number: int, scale: Scale, labelled: list[tuple[float, float, str]]) -> list[str]:
    """A line, its points with their labels where there is room, and its name."""
    colour = COLOURS[number]
    places = [(scale.x(speedup), scale.y(decibels), label) for speedup, decibels, label in line.points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
    parts = [f'<path class="line" stroke="{colour}" d="M{path}"/>']
    for x, y, label in places:
        parts.append(mark(MARKS[number], x, y, colour))
        if all(abs(x - other) > 6 * len(text) or abs(y - height) > 9 for other, height, text in labelled):
            labelled.append((x, y, label))
            parts.append(f'<text x="{x + 5:.1f}" y="{y - 4:.1f}" style="fill: {colour}">{escape(label)}</text>')
    y = 30 + 12 * number
    parts.append(mark(MARKS[number], LEFT + 60, y - 4, colour))
    parts.append(f'<text x="{LEFT + 68}" y="{y}" style="fill: {colour}">{escape(line.name)}</text>')
    return parts


def mark(kind: str, x: float, y: float, colour: str) -> str:
    """A point."""
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return f'<rect x="{x - 2.8:.1f}" y="{y - 2.8:.1f}" width="5.6" height="5.6" fill="{colour}"{turned}/>'
