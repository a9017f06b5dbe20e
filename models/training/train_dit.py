"""The transformer: a class-conditional DiT that predicts noise, averaged over its training.

    python models/training/train_dit.py --name dit-1 --seconds 4900
    python models/training/train_dit.py --name dit-2 --seconds 1650 --start-from dit-1

Without `--start-from` a new transformer is trained over a first cosine cycle; with it, a trained one goes
through a second cycle with a lower peak. Writes the averaged weights to a folder of that name.
"""

import copy
from pathlib import Path

import torch
from budget import Budget, CosineCycle
from diffusers import DiTTransformer2DModel
from work_folder import WorkFolder, argument_parser

SEED = 0
FIRST_CYCLE = CosineCycle(peak=8e-4, warmup_iterations=300, floor=0.03, weight=0.97)
SECOND_CYCLE = CosineCycle(peak=5e-4, warmup_iterations=100, floor=0.01, weight=0.99)
NULL_CLASS = 1000
"""The class that diffusers' DiTPipeline takes for the unconditional row, so the table has 1001 rows."""

DROPPED_LABELS_SHARE = 0.1
TIMESTEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 2e-2
"""DiT's linear schedule."""

TIMESTEP_SPREAD, TIMESTEP_SHIFT = 1.2, 0.1
"""Timesteps are drawn from sigmoid(normal * spread + shift): the middle, where structure is decided, most often."""

LARGEST_GRADIENT_NORM = 1.0
LARGEST_EMA_DECAY = 0.9995
REPORT_EVERY, SAVE_EVERY = 100, 2000


def new_transformer() -> DiTTransformer2DModel:
    """12 layers of 6 heads x 32, starting from the identity as DiT does (adaLN-zero)."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=4,
        out_channels=8,  # the layout of published models: the last four, a learned sigma there, are not trained
        num_layers=12,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=NULL_CLASS,
        norm_elementwise_affine=False,
    )
    modulations = [block.norm1.linear for block in transformer.transformer_blocks]
    for linear in (*modulations, transformer.proj_out_1, transformer.proj_out_2):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return transformer


class NoisyLatents:
    """Random training examples: latents with noise, and what was done to them."""

    def __init__(self, work: WorkFolder):
        stored = torch.load(work.latents)
        self.latents = stored["latents"].float() * (1 / stored["std"])
        self.classes = stored["classes"]
        betas = torch.linspace(FIRST_BETA, LAST_BETA, TIMESTEPS)
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, timesteps, classes (some dropped) and the noise."""
        chosen = torch.randint(0, len(self.latents), (size,))
        latents, classes = self.latents[chosen], self.classes[chosen].clone()
        classes[torch.rand(size) < DROPPED_LABELS_SHARE] = NULL_CLASS
        spread = torch.sigmoid(torch.randn(size) * TIMESTEP_SPREAD + TIMESTEP_SHIFT)
        timesteps = (spread * TIMESTEPS).long().clamp(0, TIMESTEPS - 1)
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise, timesteps, classes, noise


def train(
    transformer: DiTTransformer2DModel,
    examples: NoisyLatents,
    cycle: CosineCycle,
    budget: Budget,
    batch: int,
    out: Path,
) -> None:
    """Train until the budget is used up, and write the averaged transformer to `out`, now and then and at the end."""
    # Evaluation mode throughout: in training mode every block's label embedding would drop labels by itself.
    transformer.eval()
    average = copy.deepcopy(transformer)
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=cycle.peak, betas=(0.9, 0.99), weight_decay=0.0)
    iteration, mean_loss = 0, 0.0
    while budget.is_left():
        rate = cycle.learning_rate(iteration, budget.part())
        for group in optimizer.param_groups:
            group["lr"] = rate
        noisy, timesteps, classes, noise = examples.batch(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = transformer(noisy, timestep=timesteps, class_labels=classes).sample
        loss = ((predicted[:, :4].float() - noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), LARGEST_GRADIENT_NORM)
        optimizer.step()
        iteration += 1
        move_average(average, transformer, iteration)
        mean_loss = 0.98 * mean_loss + 0.02 * loss.item() if iteration > 1 else loss.item()
        if iteration % REPORT_EVERY == 0:
            elapsed = budget.elapsed_seconds()
            print(
                f"{iteration} {iteration * batch / elapsed:.0f} latents/s, loss {mean_loss:.4f}, "
                f"rate {rate:.6f}, {elapsed:.0f} s",
                flush=True,
            )
        if iteration % SAVE_EVERY == 0:
            average.save_pretrained(out)
    print(f"{iteration} iterations, loss {mean_loss:.4f}")
    average.save_pretrained(out)


@torch.no_grad()
def move_average(average: DiTTransformer2DModel, transformer: DiTTransformer2DModel, iteration: int) -> None:
    """One step of the exponential average, shorter at the start so that the first weights are forgotten."""
    decay = min(LARGEST_EMA_DECAY, (1 + iteration) / (20 + iteration))
    torch._foreach_lerp_(list(average.parameters()), list(transformer.parameters()), 1 - decay)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the transformer to write, such as dit-1")
    parser.add_argument("--seconds", type=float, required=True, help="how long to train")
    parser.add_argument("--start-from", metavar="NAME", help="train this transformer on, in a second cycle")
    parser.add_argument("--batch", type=int, default=64, help="latents per iteration (default: 64)")
    arguments = parser.parse_args()
    work: WorkFolder = arguments.work
    torch.manual_seed(SEED)
    examples = NoisyLatents(work)
    if arguments.start_from is None:
        transformer, cycle = new_transformer(), FIRST_CYCLE
    else:
        transformer = DiTTransformer2DModel.from_pretrained(work.transformer(arguments.start_from))
        cycle = SECOND_CYCLE
    out = work.transformer(arguments.name)
    train(transformer, examples, cycle, Budget(arguments.seconds), arguments.batch, out)


if __name__ == "__main__":
    main()
