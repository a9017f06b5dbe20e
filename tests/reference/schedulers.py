"""Writes tests/fixtures/schedulers.json and noise.json from diffusers' schedulers and torch's generator.

Run with torch 2.15.0, diffusers 0.42.1 and numpy 2.4 on an x86 CPU with AVX2 or better (torch's normal
numbers differ in the last bits elsewhere):

    python tests/reference/schedulers.py

A scheduler is run on a tiny latent with a made-up model (see `fake_model`) that Rust repeats; the
fixture holds the timesteps and the sample after a few of the steps.
"""

import inspect
import json
import warnings
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
DDIM, DPM, DDPM = "DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"
SCM, UNIPC = "SCMScheduler", "UniPCMultistepScheduler"
FLOW_EULER, FLOW_HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"

EMOJI_DIT = (ROOT / "models/emoji-dit/scheduler/scheduler_config.json").read_text()
# DiT-XL as diffusers' conversion script saves it: linear betas, no clipping, and no timestep_spacing, so that
# each class takes its own default.
DIT_XL = json.dumps(
    {
        "_class_name": DDIM,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "trained_betas": None,
    }
)
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def fake_model(sample, timestep):
    """A smooth function that leaves neither the sample nor the timestep out."""
    return 0.1 * torch.sin(3.0 * sample + float(timestep) / 100.0) + 0.3 * sample


def numbers(tensor):
    """f32 values with as many digits as bring back their bits."""
    return [float(f"{value:.9g}") for value in tensor.flatten().tolist()]


def case(name, config, kind, steps):
    """One run of `kind`, built from the config's text or keys as diffusers' from_config builds it."""
    scheduler, text = build(config, kind)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps, name
    return {"name": name, "config": text, "class": kind} | run(name, scheduler, steps)


def flow_case(name, config, kind, steps, image_tokens=256, even_sigmas=False):
    """The same as the flow-matching pipelines build it: `mu` from the picture's tokens, FLUX its own sigmas."""
    scheduler, text = build(config, kind)
    arguments = {"num_inference_steps": steps}
    if kind == FLOW_EULER:
        shifts = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        arguments["mu"] = calculate_shift(image_tokens, *(scheduler.config[key] for key in shifts))
    if even_sigmas:
        arguments["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(**arguments)
    flow = {"steps": steps, "image_tokens": image_tokens, "even_sigmas": even_sigmas}
    return {"name": name, "config": text, "class": kind, "flow": flow} | run(name, scheduler, steps)


def solver_case(name, config, kind, steps, image_tokens=256, even_sigmas=False):
    """A solver on flow sigmas for a model that comes with FLOW_EULER: with the keys that it lacks, and `mu` if it is
    shifted by the picture's tokens."""
    text = json.dumps(config)
    own = getattr(diffusers, FLOW_EULER).from_config(json.loads(text)).config
    keys = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": own["shift"]}
    scheduler = getattr(diffusers, kind).from_config(own, **keys)
    shifts = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(image_tokens, *(own[key] for key in shifts)) if own["use_dynamic_shifting"] else None
    if even_sigmas:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    else:
        scheduler.set_timesteps(steps, mu=mu)
    flow = {"steps": steps, "image_tokens": image_tokens, "even_sigmas": even_sigmas}
    return {"name": name, "config": text, "class": kind, "flow": flow} | run(name, scheduler, steps)


def scm_case(name, config, steps):
    """A run of SCM as SanaSprintPipeline makes it, in units of `sigma_data`."""
    scheduler, text = build(config, SCM)
    scheduler.set_timesteps(steps, **({} if steps == 2 else {"intermediate_timesteps": None}))
    assert scheduler.timesteps[-1] == 0 and len(scheduler.timesteps) == steps + 1, name
    timesteps, unit = scheduler.timesteps[:-1], scheduler.config.sigma_data
    scheduler.set_begin_index(0)
    generator = torch.Generator("cpu").manual_seed(steps)
    sample = torch.randn((1, 3, 2, 2), generator=generator)
    initial, kept = numbers(sample), {}
    for index, timestep in enumerate(timesteps):
        output = fake_model(sample, timestep)
        sample = scheduler.step(output * unit, timestep, sample * unit, generator, return_dict=False)[0] / unit
        if index in (0, 1, 2, steps // 2, steps - 1):
            kept[str(index)] = numbers(sample)
    result = {
        "timesteps": [float(timestep) for timestep in timesteps],
        "seed": steps,
        "initial": initial,
        "samples": kept,
    }
    return {"name": name, "config": text, "class": SCM} | result


def build(config, kind):
    """The scheduler and the config's text. As in a pipeline: the file's own class first, then the class asked for
    from that one's config."""
    text = config if isinstance(config, str) else json.dumps(config)
    own = json.loads(text).get("_class_name", kind)
    scheduler = getattr(diffusers, own).from_config(json.loads(text))
    return getattr(diffusers, kind).from_config(scheduler.config), text


def run(name, scheduler, seed):
    """Timesteps, and the sample after some of them."""
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise diffusers looks the first timestep up, takes its second entry where it is there twice
        # (the Karras schedule of cosine betas), and runs past the end.
        scheduler.set_begin_index(0)
    timesteps = [float(timestep) for timestep in scheduler.timesteps]
    steps = len(timesteps)
    generator = torch.Generator("cpu").manual_seed(seed)
    sample = torch.randn((1, 3, 2, 2), generator=generator)
    # Noise that a step adds goes on where the first sample ended.
    noise = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    initial = numbers(sample)
    kept = {}
    for index, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.step(fake_model(sample, timestep), timestep, sample, **noise, return_dict=False)[0]
        if index in (0, 1, 2, steps // 2, steps - 1):
            assert bool(torch.isfinite(sample).all()), name
            kept[str(index)] = numbers(sample)
    return {"timesteps": timesteps, "seed": seed, "initial": initial, "samples": kept}


def scheduler_cases():
    for steps in (1, 2, 3, 10, 25, 50):
        yield case(f"emoji-dit, {steps} steps", EMOJI_DIT, DPM, steps)
        yield case(f"emoji-dit as DDIM, {steps} steps", EMOJI_DIT, DDIM, steps)
        yield case(f"DiT-XL, {steps} steps", DIT_XL, DDIM, steps)
    yield case("DiT-XL, 250 steps", DIT_XL, DDIM, 250)
    yield case("DiT-XL as DPM-Solver, 25 steps", DIT_XL, DPM, 25)

    for spacing in ("leading", "linspace", "trailing"):
        for prediction in ("epsilon", "v_prediction", "sample"):
            keys = {"timestep_spacing": spacing, "prediction_type": prediction, "clip_sample": False}
            yield case(f"DDIM {spacing} {prediction}", keys, DDIM, 16)
            yield case(f"DPM-Solver++ {spacing} {prediction}", keys, DPM, 16)
    # As the published HunyuanDiT 1.2 and 1.1 have it.
    hunyuan = {
        "_class_name": DDPM,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": False,
        "sample_max_value": 1.0,
        "steps_offset": 1,
        "thresholding": False,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "variance_type": "fixed_small",
    }
    for beta_end in (0.018, 0.03):
        for steps in (1, 5, 50):
            keys = hunyuan | {"beta_end": beta_end}
            yield case(f"DDPM HunyuanDiT {beta_end}, {steps} steps", keys, DDPM, steps)
        yield case(f"HunyuanDiT {beta_end} as DDIM", hunyuan | {"beta_end": beta_end}, DDIM, 20)
        yield case(f"HunyuanDiT {beta_end} as DPM-Solver", hunyuan | {"beta_end": beta_end}, DPM, 20)
    yield case("DiT-XL as DDPM", DIT_XL, DDPM, 25)
    yield case("emoji-dit as DDPM", EMOJI_DIT, DDPM, 25)
    ddpm = {
        "defaults": {},
        "clip range": {"clip_sample_range": 0.5, "prediction_type": "sample"},
        "log of the variance": {"variance_type": "fixed_small_log", **LATENT},
        "large variance": {"variance_type": "fixed_large", "prediction_type": "v_prediction", "clip_sample": False},
        "no variance type": {"variance_type": None, "clip_sample": False},
        "zero SNR": {
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
            "clip_sample": False,
        },
        "linspace": {"timestep_spacing": "linspace", "clip_sample": False, **LATENT},
        "cosine": {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
        "few train timesteps": {"num_train_timesteps": 73, "clip_sample": False},
    }
    for name, keys in ddpm.items():
        yield case(f"DDPM {name}", keys, DDPM, 10)
    ddim = {
        "defaults": {},
        "clip range": {"clip_sample_range": 0.5, "prediction_type": "sample"},
        "offset, last alpha": {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False, **LATENT},
        "cosine": {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
        "zero SNR": {
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
            "clip_sample": False,
        },
        "trained betas": {"num_train_timesteps": 40, "trained_betas": [0.01 + 0.005 * i for i in range(40)]},
        "few train timesteps": {"num_train_timesteps": 73, "clip_sample": False},
    }
    for name, keys in ddim.items():
        yield case(f"DDIM {name}", keys, DDIM, 10)

    for algorithm in ("dpmsolver", "dpmsolver++"):
        for order in (1, 2, 3):
            for solver in ("midpoint", "heun"):
                keys = {
                    "algorithm_type": algorithm,
                    "solver_order": order,
                    "solver_type": solver,
                    "final_sigmas_type": "sigma_min",
                }
                for steps in (5, 20):
                    yield case(f"{algorithm} {order} {solver}, {steps} steps", keys, DPM, steps)
    for prediction in ("v_prediction", "sample"):
        keys = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": prediction}
        yield case(f"dpmsolver {prediction}", keys, DPM, 12)
    dpm = {
        "order 3": {"solver_order": 3},
        "order 3, full to the end": {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
        "full to the end": {"lower_order_final": False},
        "euler at final": {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        "Karras": {"use_karras_sigmas": True},
        "Karras, latent": {"use_karras_sigmas": True, "solver_order": 3, **LATENT},
        "Karras, sigma_min": {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        "Karras, cosine": {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        "exponential": {"use_exponential_sigmas": True},
        "exponential, latent": {"use_exponential_sigmas": True, **LATENT},
        "Lu": {"use_lu_lambdas": True},
        "Lu, latent": {"use_lu_lambdas": True, **LATENT},
        "cosine, clipped": {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
        "zero SNR": {
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
        },
        "leading, offset": {"timestep_spacing": "leading", "steps_offset": 1, **LATENT},
        "learned variance": {"variance_type": "learned_range"},
        "DEIS names": {"algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"},
        "keys of other classes": {"skip_prk_steps": True, "clip_sample": True, "eta": 3},
    }
    for name, keys in dpm.items():
        for steps in (8, 20):
            yield case(f"DPM-Solver++ {name}, {steps} steps", keys, DPM, steps)
    yield case("DPM-Solver++ Karras, 50 steps", {"use_karras_sigmas": True}, DPM, 50)
    # As the published Sana has it, `-Infinity` included.
    sana = {
        "_class_name": DPM,
        "lambda_min_clipped": -float("inf"),
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    }
    for steps in (1, 2, 5, 14, 15, 20, 50, 100):
        yield case(f"Sana, {steps} steps", sana, DPM, steps)
    flow = {
        "shift 6": {"flow_shift": 6.0},
        "shift 1, order 3": {"flow_shift": 1.0, "solver_order": 3},
        "Heun": {"solver_type": "heun"},
        "order 1": {"solver_order": 1},
        "order 3, full to the end": {"solver_order": 3, "lower_order_final": False},
        "last level": {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        "euler at final": {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        "noise": {"prediction_type": "epsilon"},
        "velocity": {"prediction_type": "v_prediction"},
        "clean": {"prediction_type": "sample"},
        "few train timesteps": {"num_train_timesteps": 73},
        "clipped, which says nothing": {"lambda_min_clipped": -5.1, "timestep_spacing": "trailing"},
    }
    for name, keys in flow.items():
        for steps in (8, 20):
            yield case(f"DPM-Solver++ flow {name}, {steps} steps", sana | keys, DPM, steps)
    yield case("Sana as flow Euler", sana, FLOW_EULER, 10)
    # As the published Wan has it.
    wan = {"_class_name": UNIPC, "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    for steps in (1, 2, 3, 5, 20, 50):
        yield case(f"Wan, {steps} steps", wan, UNIPC, steps)
    uni = {
        "order 1": {"solver_order": 1},
        "order 3": {"solver_order": 3},
        "bh1": {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        "bh1, order 3": {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
        "other solver's type": {"solver_type": "midpoint"},
        "no shift": {"flow_shift": 1.0},
        "full to the end": {"lower_order_final": False, "final_sigmas_type": "sigma_min", "solver_order": 1},
        "uncorrected": {"disable_corrector": [0, 3]},
        "terminal": {"shift_terminal": 0.1},
        "noise": {"prediction_type": "epsilon"},
        "velocity": {"prediction_type": "v_prediction"},
        "clean": {"prediction_type": "sample"},
        "few train timesteps": {"num_train_timesteps": 73},
        "other spacing, which says nothing": {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    }
    for name, keys in uni.items():
        for steps in (8, 20):
            yield case(f"UniPC {name}, {steps} steps", wan | keys, UNIPC, steps)
    yield case("Sana as UniPC", sana, UNIPC, 20)
    yield case("Wan as DPM-Solver", wan, DPM, 20)
    sprint = {"_class_name": SCM, "num_train_timesteps": 1000, "prediction_type": "trigflow", "sigma_data": 0.5}
    for steps in (1, 2, 3, 4, 7, 20, 33):
        yield scm_case(f"Sana-Sprint, {steps} steps", sprint, steps)
    yield scm_case("SCM with other data", {"sigma_data": 0.7}, 4)
    unset = {"_class_name": DDIM, "timestep_spacing": "leading", "_use_default_values": ["timestep_spacing"]}
    yield case("values left to defaults", unset, DPM, 10)


def flow_cases():
    sd3 = {"_class_name": FLOW_EULER, "num_train_timesteps": 1000, "shift": 3.0}
    dev = {"_class_name": FLOW_EULER, "shift": 3.0, "use_dynamic_shifting": True}
    schnell = {"_class_name": FLOW_EULER, "shift": 1.0, "max_shift": 1.15, "base_shift": 0.5}
    for steps in (1, 2, 4, 20, 28, 50):
        yield flow_case(f"SD3, {steps} steps", sd3, FLOW_EULER, steps)
        yield flow_case(f"SD3 with Heun, {steps} steps", sd3, FLOW_HEUN, steps)
        yield flow_case(f"FLUX dev, {steps} steps", dev, FLOW_EULER, steps, 4096, even_sigmas=True)
        yield flow_case(f"FLUX schnell, {steps} steps", schnell, FLOW_EULER, steps, 1024, even_sigmas=True)
    for tokens in (16, 256, 1000, 6144):
        yield flow_case(f"FLUX dev, {tokens} tokens", dev, FLOW_EULER, 16, tokens, even_sigmas=True)
        yield flow_case(f"SD3, dynamic, {tokens} tokens", dev, FLOW_EULER, 16, tokens)
    for steps in (1, 8, 20):
        yield solver_case(f"SD3 with DPM-Solver++, {steps} steps", sd3, DPM, steps)
        yield solver_case(f"FLUX dev with DPM-Solver++, {steps} steps", dev, DPM, steps, 4096)
        yield solver_case(f"SD3 with UniPC, {steps} steps", sd3, UNIPC, steps)
        yield solver_case(f"FLUX dev with UniPC, {steps} steps", dev, UNIPC, steps, 4096)
        yield solver_case(f"Z-Image with UniPC, {steps} steps", sd3, UNIPC, steps, even_sigmas=True)
    qwen = dev | {"shift_terminal": 0.02, "shift": 1.0, "max_image_seq_len": 8192, "max_shift": 0.9}
    yield solver_case("Qwen-Image with UniPC", qwen, UNIPC, 20, 4096, even_sigmas=True)
    others = {
        "linear shift": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        "other bounds": {
            "use_dynamic_shifting": True,
            "base_shift": 0.3,
            "max_shift": 2.0,
            "base_image_seq_len": 64,
            "max_image_seq_len": 8192,
        },
        "terminal": {"shift": 2.0, "shift_terminal": 0.1},
        "Karras": {"shift": 3.0, "use_karras_sigmas": True},
        "exponential": {"shift": 3.0, "use_exponential_sigmas": True},
        "few train timesteps": {"num_train_timesteps": 100, "shift": 1.5},
    }
    for name, keys in others.items():
        for even in (False, True):
            own = "even" if even else "own"
            yield flow_case(f"flow {name}, {own} sigmas", keys, FLOW_EULER, 12, 512, even_sigmas=even)


def noise():
    sizes = (1, 5, 15, 16, 17, 31, 32, 100)
    single = []
    for seed in (0, 1, 42, 2**32 + 5, 2**63 - 1):
        for size in (*sizes, 1024) if seed in (42, 2**63 - 1) else sizes:
            values = torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed))
            single.append({"seed": seed, "values": numbers(values)})
    generator = torch.Generator("cpu").manual_seed(7)
    draws = [numbers(torch.randn(size, generator=generator)) for size in (3, 20, 2, 16, 5, 1)]
    # A wrong last digit of one polynomial coefficient shows in one number out of ten thousand.
    long = torch.randn(1_048_583, generator=torch.Generator("cpu").manual_seed(12345))
    bits_sum = int(long.numpy().view(np.uint32).sum(dtype=np.uint64))
    return {
        "torch": torch.__version__,
        "single": single,
        "sequence": {"seed": 7, "draws": draws},
        "long": {"seed": 12345, "len": len(long), "bits_sum": bits_sum},
    }


def write(name, value):
    path = FIXTURES / name
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    print(path.relative_to(ROOT), path.stat().st_size, "bytes")


def main():
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    FIXTURES.mkdir(exist_ok=True)
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    write("schedulers.json", {"versions": versions, "cases": [*scheduler_cases(), *flow_cases()]})
    write("noise.json", noise())


if __name__ == "__main__":
    main()
