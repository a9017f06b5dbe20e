"""The VAE: 64x64 pictures to 16x16 latents of four channels and back.

    python models/training/train_vae.py [--seconds 1200]

The loss is the mean absolute error of pixels and of the differences between neighbouring pixels (which keeps
outlines sharp without a perceptual network), and a small pull of the latents towards the normal distribution.
Writes `vae/`.
"""

import torch
from augment import EmojiPictures
from budget import Budget, CosineCycle
from diffusers import AutoencoderKL
from work_folder import WorkFolder, argument_parser

SEED, DATA_SEED = 0, 1
BATCH = 32
CYCLE = CosineCycle(peak=1e-3, warmup_iterations=100, floor=0.02, weight=1.0)
EDGE_WEIGHT = 0.7
KL_WEIGHT = 1e-3
"""Small: enough to keep the latents near unit scale, too little to blur."""

LARGEST_GRADIENT_NORM = 1.0
REPORT_EVERY, SAVE_EVERY = 50, 500


def new_vae() -> AutoencoderKL:
    """About 1.7 million parameters. The scaling factor is measured later, by encode_latents.py."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,
    )


def edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between horizontal and between vertical neighbours."""
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]


def losses(vae: AutoencoderKL, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixel error, edge error and divergence from the normal distribution."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = vae.encode(pictures).latent_dist
        decoded = vae.decode(latents.sample()).sample
    decoded = decoded.float()
    pixel = (decoded - pictures).abs().mean()
    pairs = zip(edges(decoded), edges(pictures), strict=True)
    edge = sum((ours - theirs).abs().mean() for ours, theirs in pairs)
    mean, logvar = latents.mean.float(), latents.logvar.float()
    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    return pixel, edge, divergence


def train(vae: AutoencoderKL, pictures: EmojiPictures, work: WorkFolder, seconds: float) -> None:
    generator = torch.Generator().manual_seed(DATA_SEED)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=CYCLE.peak, betas=(0.9, 0.99), weight_decay=1e-4)
    budget, iteration = Budget(seconds), 0
    while budget.is_left():
        rate = CYCLE.learning_rate(iteration, budget.part())
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch, _ = pictures.batch(BATCH, generator)
        pixel, edge, divergence = losses(vae, batch)
        loss = pixel + EDGE_WEIGHT * edge + KL_WEIGHT * divergence
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), LARGEST_GRADIENT_NORM)
        optimizer.step()
        iteration += 1
        if iteration % REPORT_EVERY == 0:
            speed = iteration * BATCH / budget.elapsed_seconds()
            print(
                f"{iteration} {speed:.0f} pictures/s, pixel {pixel.item():.4f}, edge {edge.item():.4f}, "
                f"divergence {divergence.item():.3f}, rate {rate:.5f}",
                flush=True,
            )
        if iteration % SAVE_EVERY == 0:
            vae.save_pretrained(work.vae)
    print(f"{iteration} iterations")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=1200, help="how long to train (default: 1200)")
    arguments = parser.parse_args()
    work: WorkFolder = arguments.work
    torch.manual_seed(SEED)
    vae = new_vae()
    train(vae, EmojiPictures(work.pictures), work, arguments.seconds)
    vae.eval().save_pretrained(work.vae)


if __name__ == "__main__":
    main()
