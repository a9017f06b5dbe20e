"""The shapes of the picture, as lines of SVG."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from layout import Direction

THICKNESS = [(3, 1.2), (10, 2.2), (1_000_000, 3.6)]
"""Of arrows for fewer imports than the first number."""

STYLE = """
  svg { --paper: #ffffff; --ink: #1c2128; --soft: #57606a; --line: #8c959f; --crate: #f4f6f8; --room: #ffffff;
        --edge: #c4cbd3; --uses: #0b5cad; --ring: #c62828; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --soft: #9da7b1; --line: #7d8590; --crate: #161b22; --room: #21262d;
          --edge: #3d444d; --uses: #79b8ff; --ring: #ff7b72; }
  }
  text { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--ink); }
  .paper { fill: var(--paper); }
  .crate { fill: var(--crate); stroke: var(--edge); }
  .room { fill: var(--room); stroke: var(--edge); }
  .head { font-size: 15px; font-weight: bold; }
  .name { font-size: 13px; }
  .small { font-size: 11px; fill: var(--soft); }
  .about { font-size: 12px; font-family: system-ui, "DejaVu Sans", Arial, sans-serif; fill: var(--soft); }
  .uses { font-size: 11px; fill: var(--uses); }
  .arrow { fill: none; stroke: var(--line); }
  .arrow-head { fill: var(--line); }
  .ring { fill: none; stroke: var(--ring); stroke-dasharray: 5 3; }
  .ring-head { fill: var(--ring); }
"""


def arrow(points: list[tuple[float, float]], count: int, direction: Direction) -> Iterator[str]:
    """A line down through the points, for a number of imports, with a head where it points to."""
    thickness = next(width for limit, width in THICKNESS if count < limit)
    size = 4 + thickness
    heads = []
    (x, y), (last_x, last_y) = points[0], points[-1]
    if direction != Direction.DOWN:
        heads.append([(x, y), (x - size / 2, y + size), (x + size / 2, y + size)])
        points[0] = (x, y + size)
    if direction != Direction.UP:
        heads.append([(last_x, last_y), (last_x - size / 2, last_y - size), (last_x + size / 2, last_y - size)])
        points[-1] = (last_x, last_y - size)
    way = f"M{number(points[0][0])} {number(points[0][1])}"
    for (x, y), (next_x, next_y) in zip(points, points[1:], strict=False):
        if abs(x - next_x) < 0.05:
            way += f"V{number(next_y)}"
        else:
            middle = number((y + next_y) / 2)
            way += f"C{number(x)} {middle} {number(next_x)} {middle} {number(next_x)} {number(next_y)}"
    kind = "arrow" if direction == Direction.DOWN else "ring"
    yield f'<path class="{kind}" stroke-width="{thickness}" d="{way}"/>'
    for head in heads:
        corners = "L".join(f"{number(a)} {number(b)}" for a, b in head)
        yield f'<path class="{kind}-head" d="M{corners}Z"/>'


def rectangle(kind: str, x: float, y: float, width: float, height: float, radius: int) -> str:
    size = f'width="{number(width)}" height="{number(height)}"'
    return f'<rect class="{kind}" x="{number(x)}" y="{number(y)}" {size} rx="{radius}"/>'


def text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    middle = ' text-anchor="middle"' if anchor == "middle" else ""
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}"{middle}>{escape(words)}</text>'


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
