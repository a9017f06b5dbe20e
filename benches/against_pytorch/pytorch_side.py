"""PyTorch's side: does one piece of work each time a line arrives on standard input, and prints what it took as JSON.

    pytorch_side.py forward|decode MODEL DTYPE SIDE
    pytorch_side.py request MODEL DTYPE STEPS [CACHE_CONFIG]

The same work as `crates/runner/benches/against_pytorch.rs`: one forward of two rows, one decode of one picture, or one
whole request of the pipeline (guidance 4, the model's scheduler), with cache-dit where a configuration is given.
"""

import json
import os
import sys
import time

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import diffusers
import torch
from diffusers import DiTPipeline

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


def at_every_line(work):
    """The first answer is made before a line is read, so that everything is warm."""
    work()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        answer = work() or {}
        print(json.dumps(answer | {"seconds": time.perf_counter() - start}), flush=True)


def pipeline(model, dtype):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    pipe = DiTPipeline.from_pretrained(model, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def forward(pipe, side):
    transformer = pipe.transformer
    size = side // 8
    latents = torch.randn(2, transformer.config.in_channels, size, size).to(transformer.dtype)
    timesteps = torch.tensor([500, 500])
    classes = torch.tensor([7, 1000])
    at_every_line(lambda: transformer(latents, timestep=timesteps, class_labels=classes).sample[0, 0, 0, 0].item() and None)


def decode(pipe, side):
    latents = torch.randn(1, pipe.vae.config.latent_channels, side // 8, side // 8).to(pipe.vae.dtype)
    at_every_line(lambda: pipe.vae.decode(latents).sample[0, 0, 0, 0].item() and None)


def request(pipe, steps, cache):
    if cache:
        import cache_dit
        from cache_dit import DBCacheConfig

        cache_dit.enable_cache(pipe, cache_config=DBCacheConfig(num_inference_steps=steps, **cache))

    def work():
        generator = torch.Generator("cpu").manual_seed(42)
        pipe(class_labels=[7], guidance_scale=4.0, num_inference_steps=steps, generator=generator)
        if not cache:
            return {}
        return {"cached_steps": len(cache_dit.summary(pipe, logging=False)[0].cached_steps)}

    at_every_line(work)


def main():
    what, model, dtype, number, *cache = sys.argv[1:]
    pipe = pipeline(model, dtype)
    with torch.inference_mode():
        if what == "request":
            request(pipe, int(number), json.loads(cache[0]) if cache else {})
        else:
            {"forward": forward, "decode": decode}[what](pipe, int(number))


if __name__ == "__main__":
    main()
