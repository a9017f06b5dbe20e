"""The data set: two drawings of every emoji, 64x64 with transparency, from two npm packages.

    python models/training/dataset.py --packages FOLDER

FOLDER holds the unpacked packages `emoji-datasource-google-16.0.0` (Noto Emoji, with the list of all emoji)
and `lobehub-fluent-emoji-3d-1.1.0` (Fluent Emoji 3D). An emoji is used where both packages draw it.

Writes `pictures.npz` (`pictures` `[n, 64, 64, 4]` float16, RGBA in 0..1, colours not multiplied by alpha;
`classes` `[n]`), `labels.json` (id, short name, Unicode name and code points of every class) and
`overview.png`.
"""

import json
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image
from work_folder import WorkFolder, argument_parser

NOTO = "emoji-datasource-google-16.0.0/package"
FLUENT = "lobehub-fluent-emoji-3d-1.1.0/package"
SIZE = 64
"""Side of a picture in pixels; Noto's drawings in the package have it already."""

OVERVIEW_COLUMNS = 24


def chosen_names(emoji: list[dict], choice: dict) -> list[str]:
    """Short names in the order of their class ids, each once."""
    in_order = sorted(emoji, key=lambda entry: entry["sort_order"])
    names = [entry["short_name"] for entry in in_order if entry["category"] in choice["categories"]]
    names = [name for name in names if name not in choice["left_out"]]
    names += [name for group in choice["added"].values() for name in group]
    return list(dict.fromkeys(names))


def fluent_drawing(packages: Path, code_points: str) -> Path | None:
    """The Fluent file of these code points; its name leaves out the variation selector for some."""
    for candidate in (code_points, code_points.replace("-fe0f", "")):
        path = packages / FLUENT / "assets" / f"{candidate}.webp"
        if path.exists():
            return path
    return None


def noto_drawing(packages: Path, file_name: str) -> Path | None:
    path = packages / NOTO / "img/google/64" / file_name
    return path if path.exists() else None


def load_picture(path: Path) -> np.ndarray:
    """`[64, 64, 4]` float16 in 0..1."""
    image = Image.open(path).convert("RGBA")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return (np.asarray(image).astype(np.float32) / 255).astype(np.float16)


def collect(packages: Path, choice: dict) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Pictures, their classes, and the labels of the classes."""
    emoji = json.loads((packages / NOTO / "emoji.json").read_text())
    by_name = {entry["short_name"]: entry for entry in emoji}
    pictures, classes, labels = [], [], []
    for name in chosen_names(emoji, choice):
        entry = by_name[name]
        code_points = entry["unified"].lower()
        drawings = [fluent_drawing(packages, code_points), noto_drawing(packages, entry["image"])]
        if None in drawings:
            print("left out, not drawn by both packages:", name)
            continue
        for drawing in drawings:
            pictures.append(load_picture(drawing))
            classes.append(len(labels))
        full_name = (entry["name"] or name).lower()
        labels.append({"id": len(labels), "short_name": name, "name": full_name, "unified": code_points})
    return np.stack(pictures), np.array(classes), labels


def overview(pictures: np.ndarray) -> Image.Image:
    """All pictures on white, row by row."""
    rows = -(-len(pictures) // OVERVIEW_COLUMNS)
    sheet = Image.new("RGB", (SIZE * OVERVIEW_COLUMNS, SIZE * rows), "white")
    for index, picture in enumerate(pictures.astype(np.float32)):
        colour, alpha = picture[..., :3], picture[..., 3:]
        on_white = colour * alpha + (1 - alpha)
        place = (index % OVERVIEW_COLUMNS * SIZE, index // OVERVIEW_COLUMNS * SIZE)
        sheet.paste(Image.fromarray((on_white * 255).astype(np.uint8)), place)
    return sheet


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the two unpacked npm packages")
    arguments = parser.parse_args()
    work: WorkFolder = arguments.work
    choice = tomllib.loads(Path(__file__).with_name("emojis.toml").read_text())
    pictures, classes, labels = collect(arguments.packages, choice)
    work.root.mkdir(parents=True, exist_ok=True)
    np.savez(work.pictures, pictures=pictures, classes=classes)
    work.labels.write_text(json.dumps(labels, indent=1))
    overview(pictures).save(work.overview)
    print(f"{len(labels)} emoji, {len(pictures)} pictures")


if __name__ == "__main__":
    main()
