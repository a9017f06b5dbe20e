"""The model folder: VAE, transformer, scheduler and labels as a float16 DiTPipeline in diffusers layout.

python models/training/export.py --transformer dit-2 --out models/emoji-dit
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler
from train_dit import FIRST_BETA, LAST_BETA, TIMESTEPS
from work_folder import WorkFolder, argument_parser


def prompts_by_class(labels: list[dict]) -> dict[str, str]:
    """Class id to the prompts that name it, separated by commas as DiTPipeline splits them.

    The Unicode name comes first; the short name and the name without "face" follow where no class has them yet.
    """
    taken = {label["name"] for label in labels}
    prompts = {}
    for label in labels:
        names = [label["name"]]
        for alias in (label["short_name"].replace("_", " "), label["name"].removesuffix(" face")):
            if alias not in taken and alias not in names:
                names.append(alias)
                taken.add(alias)
        prompts[str(label["id"])] = ", ".join(names)
    return prompts


def load_pipeline(work: WorkFolder, transformer_name: str) -> DiTPipeline:
    """The trained parts in float16, with the scheduler that samples them best in few steps."""
    vae = AutoencoderKL.from_pretrained(work.vae)
    vae.register_to_config(scaling_factor=round(1 / torch.load(work.latents)["std"], 6))
    transformer = DiTTransformer2DModel.from_pretrained(work.transformer(transformer_name))
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=FIRST_BETA,
        beta_end=LAST_BETA,
        beta_schedule="linear",
        prediction_type="epsilon",
        algorithm_type="dpmsolver++",
        solver_order=2,
        steps_offset=0,
    )
    return DiTPipeline(transformer=transformer.half(), vae=vae.half(), scheduler=scheduler)


def edit_json(path: Path, changes: dict, dropped: tuple[str, ...] = (), indent: int = 2) -> None:
    """Change and drop keys of a JSON object in place."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in dropped}, indent=indent))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--transformer", metavar="NAME", default="dit-2", help="name given to train_dit.py")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    arguments = parser.parse_args()
    work, out = arguments.work, arguments.out
    load_pipeline(work, arguments.transformer).save_pretrained(out)
    id_to_label = prompts_by_class(json.loads(work.labels.read_text()))
    edit_json(out / "model_index.json", {"id2label": id_to_label}, indent=1)
    # DDIM clips unless told not to, and a scheduler of another class built from this config must not.
    edit_json(out / "scheduler/scheduler_config.json", {"clip_sample": False})
    for component in ("transformer", "vae"):  # where the trainer kept it is nobody's business
        edit_json(out / component / "config.json", {}, dropped=("_name_or_path",))
    print(f"{len(id_to_label)} classes, {out}")


if __name__ == "__main__":
    main()
