"""Latents of augmented pictures, made once so that training the transformer needs no VAE.

    python models/training/encode_latents.py

Writes `latents.pt`: `latents` `[n, 4, 16, 16]` float16 as the VAE gives them, `classes` `[n]`, and `std`, the
standard deviation of all latents: its inverse is the VAE's scaling factor.
"""

import torch
from augment import EmojiPictures
from diffusers import AutoencoderKL
from work_folder import WorkFolder, argument_parser

DATA_SEED = 77
BATCH = 64
BATCHES = 400
"""25 600 latents, about 39 of each drawing."""


@torch.inference_mode()
def encode(vae: AutoencoderKL, pictures: EmojiPictures, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (the means, in float32) and classes of so many batches."""
    generator = torch.Generator().manual_seed(DATA_SEED)
    latents, classes = [], []
    for _ in range(batches):
        batch, batch_classes = pictures.batch(BATCH, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            means = vae.encode(batch).latent_dist.mean
        latents.append(means.float())
        classes.append(batch_classes)
    return torch.cat(latents), torch.cat(classes)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--batches", type=int, default=BATCHES, help=f"batches of {BATCH} (default: {BATCHES})")
    arguments = parser.parse_args()
    work: WorkFolder = arguments.work
    vae = AutoencoderKL.from_pretrained(work.vae).eval()
    latents, classes = encode(vae, EmojiPictures(work.pictures), arguments.batches)
    std = latents.std().item()
    print(f"{tuple(latents.shape)}, mean per channel {latents.mean((0, 2, 3))}, standard deviation {std:.4f}")
    torch.save({"latents": latents.half(), "classes": classes, "std": std}, work.latents)


if __name__ == "__main__":
    main()
