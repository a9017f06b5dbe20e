"""What the golden scripts of the text-to-image families share: prompts, runs, what is recorded of them, cached runs.

A family's script builds a tiny pipeline, saves it under `FOLDER/model`, reads it back in float32 and hands it to
`Goldens`, so that the goldens are diffusers' own answer to exactly the files that are committed.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import cache_dit
import diffusers
import torch
import transformers
from cache_dit import DBCacheConfig, steps_mask
from PIL import Image
from safetensors.torch import save_file
from tiny_dit_goldens import LOOSE, db_cache, options_and_margin, size_of, taylor
from tiny_tokenizers import CLIP_MAX_LENGTH, UNUSUAL_TEXTS, captions, train_clip
from transformers import CLIPTextConfig, T5Config, T5EncoderModel

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
PROMPTS = {
    "short": "A red apple on a wooden table",
    "long": " ".join(captions()[:40]),  # longer than any tokenizer's limit
    "negative": "blurry, black and white film",
    "empty": "",
}


@dataclass(frozen=True)
class Run:
    """One picture that a pipeline is asked for.

    `prompt` and `negative_prompt` are keys of `PROMPTS`, or texts of their own; without a negative prompt and without
    a guidance scale the pipeline is not given any.
    """

    name: str
    prompt: str
    negative_prompt: str | None
    seed: int
    steps: int
    guidance_scale: float | None
    height: int
    width: int
    options: dict = field(default_factory=dict)

    def arguments(self) -> dict:
        """The pipeline's keyword arguments but for those that are the same in every run of a family."""
        optional = {"negative_prompt": text_of(self.negative_prompt), "guidance_scale": self.guidance_scale}
        return {
            "prompt": text_of(self.prompt),
            "num_inference_steps": self.steps,
            "height": self.height,
            "width": self.width,
            "generator": torch.Generator("cpu").manual_seed(self.seed),
            **{name: value for name, value in optional.items() if value is not None},
            **self.options,
        }


def text_of(prompt: str | None) -> str | None:
    """The text that a key of `PROMPTS` stands for, or the text itself."""
    return PROMPTS.get(prompt, prompt)


@dataclass(frozen=True)
class CachedRun:
    """A cache to repeat a run with."""

    name: str
    config: DBCacheConfig
    calibrator: object | None = None


def cached_runs(**calibrator_options) -> list[CachedRun]:
    """Every kind of decision once, for models of six blocks and more and runs of `STEPS` steps."""

    def masked(policy: str, mask: str) -> dict:
        mask_of_steps = steps_mask(total_steps=STEPS, mask_policy=mask)
        return dict(steps_computation_mask=mask_of_steps, steps_computation_policy=policy)

    def calibrated(order: int):
        return taylor(order, **calibrator_options)

    return [
        CachedRun("F1B0_R0.07", db_cache(residual_diff_threshold=0.07)),
        CachedRun("F1B0_R0.12", db_cache()),
        CachedRun("F1B0_R0.24", db_cache(residual_diff_threshold=0.24)),
        CachedRun("F4B0_R0.15", db_cache(Fn_compute_blocks=4, residual_diff_threshold=0.15)),
        CachedRun("F1B2_R0.12", db_cache(Bn_compute_blocks=2)),
        CachedRun("F4B2_R0.24_MC3", db_cache(Fn_compute_blocks=4, Bn_compute_blocks=2, **LOOSE)),
        CachedRun("Taylor1_R0.12", db_cache(), calibrated(1)),
        CachedRun("Taylor2_R0.24_MC3", db_cache(**LOOSE), calibrated(2)),
        CachedRun("SCM_medium_dynamic_R0.12", db_cache(**masked("dynamic", "medium"))),
        CachedRun("SCM_fast_static_Taylor1", db_cache(**masked("static", "fast")), calibrated(1)),
        CachedRun("W2_max_cached_5", db_cache(max_warmup_steps=2, max_cached_steps=5)),
    ]


class Goldens:
    """Collects what one model folder is to be compared with, and writes it."""

    def __init__(self, pipeline, folder: Path, **always):
        """`always` are the arguments of every call of the pipeline."""
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.folder, self.always = pipeline, folder, always
        self.tensors: dict[str, torch.Tensor] = {}
        self.json: dict = {"pipeline": type(pipeline).__name__}

    def tokens(self, max_lengths: dict[str, int], preprocess: Callable[[str], str] = str) -> None:
        """Token ids of the prompts as the pipeline pads and cuts them, and of unusual texts as they are.

        `preprocess` is what the pipeline does to a prompt before it tokenises it.
        """
        self.json["prompts"] = [
            {
                "name": name,
                "text": text,
                "tokens": {
                    component: padded(getattr(self.pipeline, component), preprocess(text), length)
                    for component, length in max_lengths.items()
                },
            }
            for name, text in PROMPTS.items()
        ]
        self.json["texts"] = {
            component: [
                {"text": text, "input_ids": getattr(self.pipeline, component)(text).input_ids} for text in UNUSUAL_TEXTS
            ]
            for component in max_lengths
        }

    def runs(self, runs: tuple[Run, ...], with_image: tuple[str, ...]) -> None:
        """Each run's noise, final latents and picture; in `with_image` also unrounded pixels and all steps."""
        self.json.setdefault("runs", [])
        for run in runs:
            with recorded_steps(self.pipeline) as steps:
                image = self.pipeline(**run.arguments(), **self.always, output_type="np").images[0]
            assert len(steps.latents) == run.steps + 1, "one noise and one result for every step"
            self.tensors[f"{run.name}.noise"] = steps.latents[0]
            self.tensors[f"{run.name}.latents"] = steps.latents[-1]
            if run.name in with_image:
                self.tensors[f"{run.name}.steps"] = torch.stack(steps.latents[1:])
                self.tensors[f"{run.name}.image"] = torch.from_numpy(image).permute(2, 0, 1)
            Image.fromarray((image * 255).round().astype("uint8")).save(self.folder / f"{run.name}.png")
            self.json["runs"].append(describe(run) | {"timesteps": steps.timesteps} | size_of(steps.latents[-1]))
            saturated = ((image <= 0) | (image >= 1)).mean()
            print(f"{run.name}: latents std {steps.latents[-1].std():.2f}, saturated {saturated:.2f}", flush=True)

    def forward(self, run: Run, step: int, inside: dict[str, torch.nn.Module]) -> None:
        """The transformer's arguments and output in step `step` of a run, and the output of the modules in `inside`."""
        calls: list[dict[str, torch.Tensor]] = []
        handles = [self.pipeline.transformer.register_forward_pre_hook(record_inputs(calls), with_kwargs=True)]
        handles += [module.register_forward_hook(record_output(calls, name)) for name, module in inside.items()]
        handles.append(self.pipeline.transformer.register_forward_hook(record_output(calls, "output")))
        self.pipeline(**run.arguments(), **self.always, output_type="latent")
        for handle in handles:
            handle.remove()
        assert len(calls) == run.steps, "one forward per step"
        self.tensors |= {f"forward.{name}": tensor for name, tensor in calls[step].items()}
        self.json["forward"] = {"run": run.name, "step": step}

    def cached(self, run: Run, studies: list[CachedRun]) -> None:
        """The run with each cache: decisions, distances and final latents."""
        self.json["cached_run"], self.json["cached"] = run.name, []
        uncached = self.latents(run)
        for study in studies:
            cache_dit.enable_cache(self.pipeline, cache_config=study.config, calibrator_config=study.calibrator)
            latents = self.latents(run)
            stats = cache_dit.summary(self.pipeline, logging=False)[-1]
            tag = cache_dit.strify(stats)
            cache_dit.disable_cache(self.pipeline)
            self.tensors[f"cached.{study.name}.latents"] = latents
            golden = {
                "name": study.name,
                "tag": tag,
                **options_and_margin(study, stats),
                "cached_steps": stats.cached_steps,
                "residual_diffs": dict(stats.residual_diffs),
                **size_of(latents),
            }
            self.json["cached"].append(golden)
            error = (latents - uncached).norm() / uncached.norm()
            print(f"{study.name}: {golden['cached_steps']} margin {golden['margin']} error {error:.3f}", flush=True)
        assert torch.equal(self.latents(run), uncached), "disable_cache left something behind"

    def latents(self, run: Run) -> torch.Tensor:
        """The final latents of a run."""
        with recorded_steps(self.pipeline) as steps:
            self.pipeline(**run.arguments(), **self.always, output_type="latent")
        return steps.latents[-1]

    def write(self) -> None:
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, self.folder / "golden.safetensors")
        (self.folder / "golden.json").write_text(json.dumps(self.json, indent=1, ensure_ascii=False) + "\n")


def padded(tokenizer, text: str, max_length: int) -> dict:
    """Ids and mask as the pipelines ask for them."""
    encoded = tokenizer(text, padding="max_length", max_length=max_length, truncation=True)
    return {"max_length": max_length, "input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}


def describe(run: Run) -> dict:
    """A run's entry in `golden.json`, with the texts that the keys of `PROMPTS` stand for."""
    return {
        "name": run.name,
        "prompt": text_of(run.prompt),
        "negative_prompt": text_of(run.negative_prompt),
        "seed": run.seed,
        "num_inference_steps": run.steps,
        "guidance_scale": run.guidance_scale,
        "height": run.height,
        "width": run.width,
        **run.options,
    }


@dataclass
class Steps:
    """What went into a run's first scheduler step and came out of every one."""

    latents: list[torch.Tensor] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)


@contextmanager
def recorded_steps(pipeline) -> Iterator[Steps]:
    """Record the initial noise and the latents after every step of the run made inside."""
    steps = Steps()
    scheduler = pipeline.scheduler
    step = scheduler.step

    @functools.wraps(step)  # the pipelines look at the signature
    def recording_step(model_output, timestep, sample, *args, **kwargs):
        if not steps.latents:
            steps.latents.append(sample.clone())
        result = step(model_output, timestep, sample, *args, **kwargs)
        steps.latents.append(result[0].clone())
        steps.timesteps.append(float(timestep))
        return result

    scheduler.step = recording_step
    try:
        yield steps
    finally:
        del scheduler.step


def record_inputs(calls: list[dict[str, torch.Tensor]]):
    """A hook that begins a record with every tensor the transformer is given, latents and timestep by position."""

    def hook(module, args, kwargs):
        given = dict(zip(("hidden_states", "timestep"), args, strict=False)) | kwargs
        for nested in ("added_cond_kwargs", "joint_attention_kwargs"):
            given |= given.pop(nested, None) or {}
        calls.append({name: value.clone() for name, value in given.items() if isinstance(value, torch.Tensor)})

    return hook


def record_output(calls: list[dict[str, torch.Tensor]], name: str):
    """A hook that adds a module's output to the record, several outputs as `name.0`, `name.1`."""

    def hook(module, args, output):
        outputs = output if isinstance(output, tuple) else (output,)
        for index, value in enumerate(outputs):
            if value is not None:
                calls[-1][name if len(outputs) == 1 else f"{name}.{index}"] = value.clone()

    return hook


# Components that several families have.


def t5_encoder(tokens: int, width: int, heads: int, head_dim: int, feed_forward: int, layers: int) -> T5EncoderModel:
    """A T5 1.1 encoder: gated GELU, 32 buckets of relative positions, embeddings not tied to an output."""
    config = T5Config(
        vocab_size=tokens,
        d_model=width,
        d_kv=head_dim,
        d_ff=feed_forward,
        num_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    encoder = T5EncoderModel(config).eval()
    randomise_norms(encoder)
    return encoder


def clip_encoder(kind, width: int, heads: int, layers: int, activation: str, eos_token_id: int):
    """A CLIP text encoder of class `kind`; its output is as wide as its layers.

    `eos_token_id` is 2 in old configs, where the end of a text is its largest id.
    """
    config = CLIPTextConfig(
        vocab_size=len(train_clip()[0]),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CLIP_MAX_LENGTH,
        hidden_act=activation,
        bos_token_id=0,
        eos_token_id=eos_token_id,
        pad_token_id=1,
    )
    encoder = kind(config).eval()
    randomise_norms(encoder)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.mul_(25)  # they begin at 0.02, too small to show beside the layers
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                module.bias.normal_(std=0.1)
    return encoder


@torch.no_grad()
def randomise_norms(component: torch.nn.Module) -> None:
    """Move norms off their initial ones and zeros, where a loader that dropped them would go unnoticed."""
    for module in component.modules():
        if type(module).__name__.endswith("Norm") and getattr(module, "weight", None) is not None:
            module.weight.add_(0.2 * torch.randn_like(module.weight))
            if getattr(module, "bias", None) is not None:
                module.bias.add_(0.2 * torch.randn_like(module.bias))


@torch.no_grad()
def silence_fast_frequencies(timestep_embedder: torch.nn.Module) -> None:
    """Zero what the faster half of the sines and cosines feeds into an embedding, so that it is smooth in time."""
    weight = timestep_embedder.linear_1.weight
    frequencies = weight.shape[1] // 2
    weight[:, : frequencies // 2] = 0
    weight[:, frequencies : frequencies + frequencies // 2] = 0


def save(pipeline, folder: Path) -> None:
    """Save a pipeline whose tokenizers lie in the folder in their published form, and leave those as they are."""
    published = folder.with_name("published")
    shutil.move(folder, published)
    pipeline.save_pretrained(folder)
    for tokenizer in published.iterdir():
        shutil.rmtree(folder / tokenizer.name)
        shutil.move(tokenizer, folder / tokenizer.name)
    published.rmdir()


def save_in_shards(component, folder: Path, shard_size: str) -> None:
    """Save a component in bf16, in shards with an index. It is in bf16 from then on."""
    shutil.rmtree(folder)
    component.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard_size)
    assert list(folder.glob("*.index.json")), f"{folder}: shards of {shard_size} are not smaller than all of it"


def quiet() -> None:
    """One thread, so that sums have one order on every machine, and no chatter."""
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
