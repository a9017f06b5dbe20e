"""PyTorch's side: does one piece of work each time a line arrives on standard input, and prints what it took as JSON.

    pytorch_side.py [--device cuda:0] [--compile MODE] forward|decode MODEL DTYPE SIDE
    pytorch_side.py [--device cuda:0] [--compile MODE] request MODEL DTYPE STEPS [CACHE_CONFIG]

The same work as `crates/runner/benches/against_pytorch.rs`: one forward of two rows, one decode of one picture, or one
whole request of the pipeline (guidance 4, DPM-Solver++), with cache-dit where a configuration is given. MODE is that of
`torch.compile`, for the transformer and the decoder.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import diffusers
import torch
from diffusers import DiTPipeline, DPMSolverMultistepScheduler

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


def pipeline(options):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    pipe = DiTPipeline.from_pretrained(options.model, torch_dtype=dtype).to(options.device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    if options.compile:
        pipe.transformer = torch.compile(pipe.transformer, mode=options.compile)
        pipe.vae.decode = torch.compile(pipe.vae.decode, mode=options.compile)
    return pipe


def forward(pipe, side):
    transformer = pipe.transformer
    size = side // 8
    latents = torch.randn(2, transformer.config.in_channels, size, size).to(pipe.device, transformer.dtype)
    timesteps = torch.tensor([500, 500], device=pipe.device)
    classes = torch.tensor([7, 1000], device=pipe.device)
    # Reading a number waits for the device.
    at_every_line(lambda: transformer(latents, timestep=timesteps, class_labels=classes).sample[0, 0, 0, 0].item() and None)


def decode(pipe, side):
    latents = torch.randn(1, pipe.vae.config.latent_channels, side // 8, side // 8).to(pipe.device, pipe.vae.dtype)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile")
    parser.add_argument("what", choices=["forward", "decode", "request"])
    parser.add_argument("model")
    parser.add_argument("dtype", choices=["f32", "bf16"])
    parser.add_argument("number", type=int)
    parser.add_argument("cache", nargs="?", type=json.loads)
    options = parser.parse_args()
    pipe = pipeline(options)
    with torch.inference_mode():
        if options.what == "request":
            request(pipe, options.number, options.cache)
        else:
            {"forward": forward, "decode": decode}[options.what](pipe, options.number)


if __name__ == "__main__":
    main()
