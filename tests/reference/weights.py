"""Writes the weight files that the tests of `afterimage_checkpoint::Weights` read.

    python tests/reference/weights.py        (torch 2.15.0, safetensors)

Every folder of tests/fixtures/weights/ is one component in one published form. `expected.json` beside
it has, per tensor, the shape and its values after `.to(dtype)` in each dtype a model can run in.
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "weights"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
NAME = "diffusion_pytorch_model"


def folder(name):
    path = OUT / name
    path.mkdir(parents=True)
    return path


def write_expected(path, tensors):
    expected = {}
    for name, tensor in tensors.items():
        entry = {"shape": list(tensor.shape)}
        for key, dtype in DTYPES.items():
            entry[key] = tensor.detach().to(dtype).float().flatten().tolist()
        expected[name] = entry
    text = json.dumps(expected, indent=None, separators=(",", ":"))
    (path / "expected.json").write_text(text + "\n")


def write_index(path, suffix, shards):
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (path / f"{NAME}.{suffix}.index.json").write_text(json.dumps(index, indent=2) + "\n")


def random(*shape, dtype=torch.float32):
    # Spread over many exponents, so that rounding differs between the dtypes.
    return (torch.randn(*shape) * 10 ** torch.randn(*shape)).to(dtype)


def mixed_safetensors():
    path = folder("safetensors")
    tensors = {
        "blocks.0.linear.weight": random(6, 5),
        "blocks.0.linear.bias": random(6),
        "blocks.1.linear.weight": random(6, 5, dtype=torch.float16),
        "blocks.1.linear.bias": random(6, dtype=torch.bfloat16),
        "conv.weight": random(3, 2, 3, 3, dtype=torch.bfloat16),
        "scale": random(1)[0],
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, path / f"{NAME}.safetensors", metadata={"format": "pt"})
    write_expected(path, tensors)


def sharded_safetensors():
    path = folder("safetensors-sharded")
    shards = {
        f"{NAME}-00001-of-00002.safetensors": {"a.weight": random(4, 3), "a.bias": random(4)},
        f"{NAME}-00002-of-00002.safetensors": {"b.weight": random(3, 4, dtype=torch.float16)},
    }
    for file, tensors in shards.items():
        save_file(tensors, path / file, metadata={"format": "pt"})
    write_index(path, "safetensors", shards)
    write_expected(path, {k: v for tensors in shards.values() for k, v in tensors.items()})


def pickle():
    """What a state dict can hold: a parameter, shared storages, views, transposed and strided tensors."""
    path = folder("pickle")
    base = random(24)
    tensors = torch.nn.Module().state_dict()  # an OrderedDict with _metadata, as saved models have
    tensors["parameter"] = torch.nn.Parameter(random(2, 3))
    tensors["half"] = random(5, dtype=torch.float16)
    tensors["bfloat"] = random(2, 2, dtype=torch.bfloat16)
    tensors["view"] = base[6:18].view(3, 4)
    tensors["tied"] = tensors["view"]
    tensors["transposed"] = base[:12].view(3, 4).t()
    tensors["strided"] = base.view(6, 4)[:, 1:3]
    tensors["half_view"] = random(9, dtype=torch.float16)[4:].view(5)
    tensors["channels_last"] = random(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    tensors["scalar"] = random(1)[0]
    tensors["position_ids"] = torch.arange(4)
    torch.save(tensors, path / f"{NAME}.bin")
    write_expected(path, {k: v for k, v in tensors.items() if k != "position_ids"})


def sharded_pickle():
    path = folder("pickle-sharded")
    shards = {
        f"{NAME}-00001-of-00002.bin": {"a.weight": random(4, 3)},
        f"{NAME}-00002-of-00002.bin": {"b.weight": random(3, 4, dtype=torch.bfloat16)},
    }
    for file, tensors in shards.items():
        torch.save(tensors, path / file)
    write_index(path, "bin", shards)
    write_expected(path, {k: v for tensors in shards.values() for k, v in tensors.items()})


def unreadable_pickles():
    tensors = {"weight": random(2, 2)}
    legacy = folder("pickle-legacy") / f"{NAME}.bin"
    torch.save(tensors, legacy, _use_new_zipfile_serialization=False)
    torch.save({"state_dict": tensors}, folder("pickle-nested") / f"{NAME}.bin")
    torch.save([tensors["weight"]], folder("pickle-list") / f"{NAME}.bin")


def doubles():
    """float64, as scripts on numpy leave it; its values fall between those of the narrower dtypes."""
    tensors = {"a.weight": random(6, 5, dtype=torch.float64), "a.bias": random(6, dtype=torch.float64)}
    # Just above the middle of two float16 and of two bfloat16: rounding once and twice differ.
    tensors["ties"] = torch.tensor([1 + 2**-11, 1 + 2**-8, 3.0]).double() + 2.0**-40
    path = folder("double-safetensors")
    save_file(tensors, path / f"{NAME}.safetensors", metadata={"format": "pt"})
    write_expected(path, tensors)
    path = folder("double-pickle")
    torch.save(tensors, path / f"{NAME}.bin")
    write_expected(path, tensors)


def all_of(dtype):
    """Every finite number of a format of eight bits, in rows of two."""
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype)
    return numbers[torch.isfinite(numbers.float())].reshape(-1, 2)


def fp8():
    """Both formats with scales of every shape and name, in shards whose scales are in the other one."""
    path = folder("fp8")
    weights = {
        "e4m3.weight": all_of(torch.float8_e4m3fn),
        "e5m2.weight": all_of(torch.float8_e5m2),
        "whole.weight": all_of(torch.float8_e4m3fn),
        "rows.weight": all_of(torch.float8_e5m2),
        "columns.weight": all_of(torch.float8_e4m3fn),
        "convolution.weight": random(3, 2, 3, 3).clamp(-448, 448).to(torch.float8_e4m3fn),
        "e4m3.bias": random(5).clamp(-448, 448).to(torch.float8_e4m3fn),
    }
    scales = {
        "whole.scale_weight": torch.tensor(3e-3),
        "rows.weight_scale": random(len(weights["rows.weight"])).abs().clamp(max=1),
        "columns.weight_scale_inv": random(len(weights["columns.weight"]), 1, dtype=torch.bfloat16).abs().clamp(max=1),
        "convolution.weight_scale": torch.tensor([0.25]),
    }
    names = ("whole.scale_input", "rows.input_scale", "columns.activation_scale")
    beside = {name: torch.tensor(2.0) for name in names}
    files = [f"{NAME}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    shards = {files[0]: scales, files[1]: weights | beside}
    for file, tensors in shards.items():
        save_file(tensors, path / file, metadata={"format": "pt"})
    write_index(path, "safetensors", shards)
    expected = {}
    for name, tensor in weights.items():
        stem = name.split(".")[0]
        scale = [scales[key].float() for key in scales if key.startswith(f"{stem}.") and name.endswith(".weight")]
        scale = scale[0] if scale else torch.tensor(1.0)
        if scale.numel() > 1:
            scale = scale.reshape(-1, 1)
        expected[name] = tensor.float() * scale
    write_expected(path, expected)


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    torch.manual_seed(0)
    mixed_safetensors()
    sharded_safetensors()
    pickle()
    sharded_pickle()
    unreadable_pickles()
    doubles()
    fp8()
