"""Tiny random DiT folders that vary how weights are stored and what the configs say, with expected pictures.

    python tests/reference/tiny_models.py [--out tests/fixtures/models]

Writes one diffusers folder per model, and beside its components

* `expected.json`: the runs (prompt, class label, seed, steps, guidance scale),
* `expected.safetensors`: for every run `NAME.noise` and `NAME.latents` `[1, channels, rows, columns]` (the
  final latents before the VAE's scaling is undone) and `NAME.image` `[3, height, width]` in 0..1, all float32.

The folder is written first and then read back by `DiTPipeline.from_pretrained` in float32, so the expected
values are diffusers' own answer to exactly the files that are committed.

The nets are untrained, so two things keep their trajectories bounded and well conditioned: models that
predict noise get a milder noise schedule than DiT's (`beta_end` 0.002), the others predict velocity or the
sample; and the fastest timestep frequencies are silenced, so neighbouring steps get similar answers.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler
from final_latents import record_final_latents
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
NULL_CLASS = 1000
"""DiTPipeline's hard-coded class of the unconditional row: every class table needs 1001 rows."""
ID_TO_LABEL = {"0": "tench, Tinca tinca", "207": "golden retriever", "388": "giant panda, panda, panda bear"}
CLASS_OF_PROMPT = {"tench": 0, "golden retriever": 207, "panda bear": 388}
PICKLE = "diffusion_pytorch_model.bin"


@dataclass(frozen=True)
class Run:
    """One picture that the model is asked for."""

    prompt: str
    seed: int
    steps: int
    guidance_scale: float

    @property
    def name(self) -> str:
        return f"seed{self.seed}_steps{self.steps}_g{self.guidance_scale:g}"


@dataclass(frozen=True)
class TinyModel:
    """One folder: what is in it and how it is stored."""

    name: str
    transformer: dict
    vae: dict
    scheduler: diffusers.SchedulerMixin
    runs: tuple[Run, ...]
    save: Callable[[DiTPipeline, Path], None]


# The ways to store a pipeline.


def save_float32(pipeline: DiTPipeline, folder: Path) -> None:
    """One float32 safetensors file per component."""
    pipeline.save_pretrained(folder)


def save_bfloat16_shards(pipeline: DiTPipeline, folder: Path) -> None:
    """bfloat16 safetensors in several shards with an index."""
    pipeline.to(torch.bfloat16).save_pretrained(folder, max_shard_size="80KB")


def save_float16_pickle(pipeline: DiTPipeline, folder: Path) -> None:
    """float16 pickles under the names and config keys of the DiT repositories published in 2022 and 2023."""
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=False)
    for name in ("transformer", "vae"):  # an ordered dict with `_metadata`, as pickled then; today's is a plain dict
        torch.save(pipeline.components[name].state_dict(), folder / name / PICKLE)
    make_legacy_attention_names(folder / "vae" / PICKLE)
    make_legacy_index(folder / "model_index.json")
    make_legacy_transformer_config(folder / "transformer" / "config.json")
    make_legacy_vae_config(folder / "vae" / "config.json")
    make_legacy_scheduler_config(folder / "scheduler" / "scheduler_config.json")


def make_legacy_index(path: Path) -> None:
    """Name the transformer's class as it was called at first."""
    index = read_json(path) | {"_diffusers_version": "0.12.0.dev0", "transformer": ["diffusers", "Transformer2DModel"]}
    write_json(path, index)


def make_legacy_transformer_config(path: Path) -> None:
    """The class DiT had at first, with the other keys that class knew and without the one that came later."""
    config = read_json(path) | {
        "_class_name": "Transformer2DModel",
        "_diffusers_version": "0.12.0.dev0",
        "cross_attention_dim": None,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "use_linear_projection": False,
    }
    del config["norm_eps"]
    write_json(path, dict(sorted(config.items())))


def make_legacy_vae_config(path: Path) -> None:
    """Only the keys of a VAE published with diffusers 0.4: no scaling factor, no switches."""
    keep_keys(
        path,
        "0.4.2",
        ("act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels", "layers_per_block")
        + ("norm_num_groups", "out_channels", "sample_size", "up_block_types"),
    )


def make_legacy_scheduler_config(path: Path) -> None:
    """Only the keys of a DDIM scheduler published with diffusers 0.12: no timestep spacing, no thresholding."""
    keep_keys(
        path,
        "0.12.0.dev0",
        ("beta_end", "beta_schedule", "beta_start", "clip_sample", "num_train_timesteps", "prediction_type")
        + ("set_alpha_to_one", "steps_offset", "trained_betas"),
    )


def keep_keys(path: Path, diffusers_version: str, keys: tuple[str, ...]) -> None:
    """Cut a config down to its class and these keys."""
    config = read_json(path)
    legacy = {"_class_name": config["_class_name"], "_diffusers_version": diffusers_version}
    write_json(path, legacy | {key: config[key] for key in keys})


def make_legacy_attention_names(path: Path) -> None:
    """Call the VAE's attention weights what they were called before diffusers 0.17."""
    legacy_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = torch.load(path, weights_only=True)
    for name in list(weights):
        module, _, parameter = name.rpartition(".")
        for new, old in legacy_names.items():
            if module.endswith(f"attentions.0.{new}"):
                weights[f"{module.removesuffix(new)}{old}.{parameter}"] = weights.pop(name)
    torch.save(weights, path)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


# The models.


def vae_config(channels: tuple[int, ...], **more) -> dict:
    """AutoencoderKL arguments for blocks of these widths."""
    return dict(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        **more,
    )


def transformer_config(heads: int, head_dim: int, layers: int, **more) -> dict:
    """DiTTransformer2DModel arguments; class labels as DiTPipeline wants them."""
    return dict(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        num_layers=layers,
        num_embeds_ada_norm=NULL_CLASS,
        **more,
    )


MILD_NOISE = dict(beta_start=1e-4, beta_end=0.002, beta_schedule="linear", prediction_type="epsilon")

MODELS = (
    TinyModel(
        name="f32-safetensors",
        transformer=transformer_config(2, 8, 3, in_channels=4, out_channels=8, sample_size=8, patch_size=2),
        vae=vae_config((8, 8), latent_channels=4, norm_num_groups=4, sample_size=16, scaling_factor=0.5),
        scheduler=DDIMScheduler(clip_sample=False, **MILD_NOISE),
        runs=(
            Run("golden retriever", 5, 12, 4.0),
            Run("panda bear", 4294967301, 7, 1.0),  # randn looks at a seed's low 32 bits: the noise of seed 5
            Run("tench", 0, 1, 4.0),
        ),
        save=save_float32,
    ),
    TinyModel(
        name="bf16-sharded",
        transformer=transformer_config(2, 16, 2, in_channels=4, out_channels=8, sample_size=8, patch_size=2),
        vae=vae_config((16, 16), latent_channels=4, norm_num_groups=8, sample_size=16, scaling_factor=0.8),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=1e-4, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction"
        ),
        runs=(Run("panda bear", 11, 10, 4.0), Run("tench", 12, 16, 1.0)),
        save=save_bfloat16_shards,
    ),
    TinyModel(
        name="f16-pickle",
        transformer=transformer_config(2, 16, 2, in_channels=4, out_channels=8, sample_size=8, patch_size=2),
        vae=vae_config((8, 16), latent_channels=4, norm_num_groups=4, sample_size=16),
        scheduler=DDIMScheduler(clip_sample=False, **MILD_NOISE),
        runs=(Run("golden retriever", 21, 9, 4.0), Run("golden retriever", 22, 15, 1.0)),
        save=save_float16_pickle,
    ),
    TinyModel(  # no learned sigma, eight latent channels, a VAE that does not shrink
        name="v-prediction-dpm",
        transformer=transformer_config(
            3,
            8,
            2,
            in_channels=8,
            out_channels=8,
            sample_size=16,
            patch_size=4,
            activation_fn="gelu",
            attention_bias=False,
            norm_elementwise_affine=True,
            norm_eps=1e-4,
        ),
        vae=vae_config(
            (8,),
            latent_channels=8,
            norm_num_groups=2,
            layers_per_block=2,
            sample_size=16,
            scaling_factor=1.2,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=1e-4,
            beta_end=0.02,
            beta_schedule="linear",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
        ),
        runs=(Run("tench", 31, 8, 4.0), Run("panda bear", 32, 13, 1.0)),
        save=save_float32,
    ),
    TinyModel(  # every pixel a token, one head, a VAE of three blocks, trailing timesteps
        name="sample-prediction-patch1",
        transformer=transformer_config(1, 16, 2, in_channels=4, out_channels=4, sample_size=8, patch_size=1),
        vae=vae_config((8, 8, 16), latent_channels=4, norm_num_groups=8, sample_size=32, scaling_factor=0.5),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="sample",
            clip_sample=False,
            set_alpha_to_one=False,
            timestep_spacing="trailing",
        ),
        runs=(Run("golden retriever", 41, 6, 4.0), Run("tench", 42, 11, 1.0)),
        save=save_float32,
    ),
)


def build(model: TinyModel) -> DiTPipeline:
    """The model with random weights, the same ones on every call."""
    torch.manual_seed(0)
    pipeline = DiTPipeline(
        transformer=DiTTransformer2DModel(**model.transformer).eval(),
        vae=AutoencoderKL(**model.vae).eval(),
        scheduler=model.scheduler,
    )
    silence_fast_timestep_frequencies(pipeline.transformer)
    for component in (pipeline.transformer, pipeline.vae):
        randomise_norms(component)
    return pipeline


@torch.no_grad()
def silence_fast_timestep_frequencies(transformer: DiTTransformer2DModel) -> None:
    """Zero what the faster half of the sines and cosines feeds into every block's timestep embedding."""
    for block in transformer.transformer_blocks:
        weight = block.norm1.emb.timestep_embedder.linear_1.weight
        frequencies = weight.shape[1] // 2
        weight[:, : frequencies // 2] = 0
        weight[:, frequencies : frequencies + frequencies // 2] = 0


@torch.no_grad()
def randomise_norms(component: torch.nn.Module) -> None:
    """Move norms off their initial ones and zeros, where a loader that dropped them would not be noticed."""
    for module in component.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm) and module.weight is not None:
            module.weight.add_(0.2 * torch.randn_like(module.weight))
            module.bias.add_(0.2 * torch.randn_like(module.bias))


def add_labels(folder: Path) -> None:
    """`save_pretrained` forgets the labels: write them as the published folders have them."""
    index = read_json(folder / "model_index.json")
    write_json(folder / "model_index.json", index | {"id2label": ID_TO_LABEL})


def expect(folder: Path, runs: tuple[Run, ...]) -> None:
    """Read the folder back in float32 and store what every run gives."""
    pipeline = DiTPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    final_latents = record_final_latents(pipeline)
    config = pipeline.transformer.config
    cases, tensors = [], {}
    for run in runs:
        label = pipeline.get_label_ids([run.prompt])[0]
        assert label == CLASS_OF_PROMPT[run.prompt], (run.prompt, label)
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        tensors[f"{run.name}.noise"] = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(run.seed))
        image = pipeline(
            class_labels=[label],
            guidance_scale=run.guidance_scale,
            num_inference_steps=run.steps,
            generator=torch.Generator("cpu").manual_seed(run.seed),
            output_type="np",
        ).images[0]
        tensors[f"{run.name}.latents"] = final_latents.pop()
        tensors[f"{run.name}.image"] = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        cases.append(
            {
                "name": run.name,
                "prompt": run.prompt,
                "class_label": label,
                "seed": run.seed,
                "num_inference_steps": run.steps,
                "guidance_scale": run.guidance_scale,
            }
        )
        largest = tensors[f"{run.name}.latents"].abs().max().item()
        print(f"{folder.name} {run.name}: largest latent {largest:.2f}, picture {image.shape} mean {image.mean():.3f}")
    write_json(folder / "expected.json", cases)
    save_file(tensors, folder / "expected.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/models", help="where the folders go")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one thread: the same sums in the same order on every machine
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    for model in MODELS:
        folder = out / model.name
        shutil.rmtree(folder, ignore_errors=True)
        model.save(build(model), folder)
        add_labels(folder)
        expect(folder, model.runs)


if __name__ == "__main__":
    main()
