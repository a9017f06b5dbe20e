"""What caching brings and costs on a running server: the tables in docs/caching.md.

usage: compare_caches.py [URL]     (needs pillow and numpy; the server should have nothing else to do)

Every cache is compared with the uncached picture of the same prompt and seed: hit rate, the median of the
denoising times' quotient, and the mean PSNR over eight pictures of 28 steps, if no
other number is named. Qualities are
compared with `high`.
"""

import base64
import io
import json
import math
import sys
import urllib.request

import numpy as np
from PIL import Image

PROMPTS = ["red apple", "fox face", "rocket", "sunflower", "hamburger", "penguin", "tiger", "key"]
CACHES = {
    "cache_dit": (28, "cache_dit", {}),
    "cache_dit, quality first": (
        28,
        "cache_dit",
        {"residual_diff_threshold": 0.12, "max_continuous_cached_steps": 1, "enable_taylorseer": True},
    ),
    "cache_dit, speed first": (
        28,
        "cache_dit",
        {"residual_diff_threshold": 0.24, "max_continuous_cached_steps": 3, "enable_taylorseer": True},
    ),
    "cache_dit, 8 steps": (8, "cache_dit", {"max_warmup_steps": 2, "max_continuous_cached_steps": 1}),
    "cache_dit, DBPrune at 0.12": (28, "cache_dit", {"cache_type": "DBPrune", "residual_diff_threshold": 0.12}),
    "tea_cache at 0.05": (28, "tea_cache", {"rel_l1_thresh": 0.05}),
    "tea_cache at 0.1": (28, "tea_cache", {"rel_l1_thresh": 0.1}),
    "tea_cache": (28, "tea_cache", {}),
    "mag_cache": (28, "mag_cache", {}),
}


def generate(url, **request):
    """The picture as an array, and the whole response."""
    body = json.dumps(request).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/images/generations", data=body)) as answer:
        response = json.load(answer)
    picture = Image.open(io.BytesIO(base64.b64decode(response["data"][0]["b64_json"])))
    return np.asarray(picture, dtype=np.float64), response


def psnr(a, b):
    """Peak signal-to-noise ratio in dB, at most 99."""
    error = ((a - b) ** 2).mean()
    return 99.0 if error == 0 else min(99.0, 10 * math.log10(255**2 / error))


def main():
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
    generate(url, prompt=PROMPTS[0])  # the first request of a server is slower
    for name, (steps, backend, config) in CACHES.items():
        steps = {"num_inference_steps": steps}
        compare(url, name, steps, {**steps, "cache_backend": backend, "cache_config": config})
    for quality in ("medium", "low"):
        compare(url, f"quality {quality}", {"quality": "high"}, {"quality": quality})


def compare(url, name, plain_fields, cached_fields):
    """Prints the line of one setting, measured turn by turn with the plain one."""
    hits, seconds, quotients, decibels = [], [], [], []
    for seed, prompt in enumerate(PROMPTS):
        plain, plain_response = generate(url, prompt=prompt, seed=seed, **plain_fields)
        cached, response = generate(url, prompt=prompt, seed=seed, **cached_fields)
        seconds.append(response["timings"]["denoise_seconds"])
        quotients.append(plain_response["timings"]["denoise_seconds"] / seconds[-1])
        hits.append(response["cache"]["hit_rate"])
        decibels.append(psnr(plain, cached))
    print(
        f"{name:28} hit rate {np.mean(hits):.2f}  {np.median(seconds):.2f} s  {np.median(quotients):.1f} x"
        f"  {np.mean(decibels):.1f} dB"
    )


if __name__ == "__main__":
    main()
