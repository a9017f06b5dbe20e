"""Where the steps of the recipe find what the steps before them made."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkFolder:
    """One folder for everything that is made on the way to the exported model."""

    root: Path

    @property
    def pictures(self) -> Path:
        """Drawings and their classes, from dataset.py."""
        return self.root / "pictures.npz"

    @property
    def labels(self) -> Path:
        """Names of the classes, from dataset.py."""
        return self.root / "labels.json"

    @property
    def overview(self) -> Path:
        """All drawings on one sheet, to look at, from dataset.py."""
        return self.root / "overview.png"

    @property
    def vae(self) -> Path:
        """The VAE, from train_vae.py."""
        return self.root / "vae"

    @property
    def latents(self) -> Path:
        """Encoded pictures, from encode_latents.py."""
        return self.root / "latents.pt"

    def transformer(self, name: str) -> Path:
        """A transformer by the name it was trained under, from train_dit.py."""
        return self.root / name


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the one option that every step has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        type=lambda path: WorkFolder(Path(path)),
        default=WorkFolder(Path("out/training")),
        metavar="FOLDER",
        help="folder of the intermediate results (default: out/training)",
    )
    return parser
