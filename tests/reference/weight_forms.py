"""Writes which file diffusers and transformers load where a component has several.

    python tests/reference/weight_forms.py        (diffusers 0.42.1, transformers 5.23.0)

A tiny `AutoencoderKL` and a tiny `T5EncoderModel` are saved in every form, each with weights of its own. Every set of
the forms becomes a component's folder, which is loaded as `DiffusionPipeline` loads it, once as a local folder and
once as what `DiffusionPipeline.download` would fetch of such a repository. The weights tell which form was read.

tests/fixtures/weight_forms.json is a list of
    library   "diffusers" or "transformers"
    variant   what was asked for, or null
    files     the forms that are there: the name of the file, or of the index of the shards
    local     the one that was loaded; null where loading fails
    hub       the same of what is fetched
"""

import itertools
import json
import logging
import pathlib
import shutil
import tempfile

import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.pipeline_loading_utils import (
    _get_ignore_patterns,
    _identify_model_variants,
    filter_model_files,
    variant_compatible_siblings,
)
from diffusers.utils import logging as diffusers_logging
from transformers import T5Config, T5EncoderModel

OUT = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "weight_forms.json"
VARIANT = "fp16"


def tiny(library):
    if library == "diffusers":
        return AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, layers_per_block=1, latent_channels=1)
    sizes = {"vocab_size": 8, "d_model": 4, "d_kv": 2, "d_ff": 4, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu"))


def file_name(library, safe, variant):
    stem = {
        ("diffusers", True): "diffusion_pytorch_model",
        ("diffusers", False): "diffusion_pytorch_model",
        ("transformers", True): "model",
        ("transformers", False): "pytorch_model",
    }[library, safe]
    return f"{stem}{'.' + variant if variant else ''}.{'safetensors' if safe else 'bin'}"


def index_name(library, safe, variant):
    return f"{file_name(library, safe, None)}.index{'.' + variant if variant else ''}.json"


def save(folder, state, name, shards_index):
    """`state` as one file, or as two with an index, under the names that save_pretrained gives."""
    from safetensors.torch import save_file

    def write(tensors, path):
        if path.suffix == ".safetensors":
            save_file(tensors, path, metadata={"format": "pt"})
        else:
            torch.save(tensors, path)

    if shards_index is None:
        write(state, folder / name)
        return
    stem, suffix = name.rsplit(".", 1)
    names = sorted(state)
    weight_map = {}
    for part, chunk in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        shard = f"{stem}-{part + 1:05}-of-00002.{suffix}"
        write({name: state[name] for name in chunk}, folder / shard)
        weight_map |= {name: shard for name in chunk}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / shards_index).write_text(json.dumps(index))


def write_forms(library, pool):
    """Folders with one form each, and the value that all of its weights have."""
    forms = {}
    for variant, safe, sharded in itertools.product((None, VARIANT), (True, False), (False, True)):
        model = tiny(library)
        value = float(len(forms) + 1)
        state = {name: torch.full_like(tensor, value).clone() for name, tensor in model.state_dict().items()}
        state.pop("encoder.embed_tokens.weight", None)  # tied; files have it once
        name = file_name(library, safe, variant)
        index = index_name(library, safe, variant) if sharded else None
        folder = pool / str(len(forms))
        folder.mkdir()
        save(folder, state, name, index)
        forms[index or name] = (folder, value)
    return forms


def loaded(library, model_folder, variant):
    """The value of the weights that were loaded."""
    config = {"part": [library, "Any"]}
    variant = _identify_model_variants(folder=model_folder, variant=variant, config=config).get("part")
    kind = AutoencoderKL if library == "diffusers" else T5EncoderModel
    arguments = {} if library == "transformers" and variant is None else {"variant": variant}
    model = kind.from_pretrained(model_folder / "part", use_safetensors=None, **arguments)
    values = {float(tensor.flatten()[0]) for tensor in model.state_dict().values()}
    assert len(values) == 1, values
    return values.pop()


def fetched(files, variant):
    """What `DiffusionPipeline.download` fetches of `part/`."""
    files = {f"part/{file}" for file in files}
    folders = {"part"} if filter_model_files(files) else set()
    # As `DiffusionPipeline.download` sets them where nothing is said about safetensors.
    ignored = _get_ignore_patterns([], folders, files, True, True, False, False, False, variant)
    usable, _ = variant_compatible_siblings(files, variant=variant, ignore_patterns=ignored)
    # Nor index files of what is ignored.
    kept = [f for f in usable if not any(f".{i.lstrip('*.')}.index." in f for i in ignored)]
    return {file.removeprefix("part/") for file in kept}


def case(library, forms, names, variant):
    values = {value: name for name, (_, value) in forms.items()}
    with tempfile.TemporaryDirectory() as place:
        part = pathlib.Path(place) / "part"

        def load(keep):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            (part / "config.json").write_text(json.dumps(tiny_config[library]))
            for name in names:
                for file in forms[name][0].iterdir():
                    if keep is None or file.name in keep:
                        shutil.copy(file, part / file.name)
            try:
                return values[loaded(library, pathlib.Path(place), variant)]
            except (OSError, ValueError):
                return None

        files = [file.name for name in names for file in forms[name][0].iterdir()]
        try:
            hub = load(fetched(files, variant))
        except ValueError:
            hub = None
        return {
            "library": library,
            "variant": variant,
            "files": list(names),
            "local": load(None),
            "hub": hub,
        }


tiny_config = {}

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    diffusers_logging.disable_progress_bar()
    cases = []
    for library in ("diffusers", "transformers"):
        with tempfile.TemporaryDirectory() as place:
            pool = pathlib.Path(place)
            tiny(library).save_pretrained(pool / "tiny")
            tiny_config[library] = json.loads((pool / "tiny" / "config.json").read_text())
            forms = write_forms(library, pool)
            names = list(forms)
            plain, variants = names[:4], names[4:]
            sets = [s for n in range(1, 5) for s in itertools.combinations(plain, n)]
            cases += [case(library, forms, s, None) for s in sets]
            sets = [s for n in range(1, 5) for s in itertools.combinations(variants, n)]
            cases += [case(library, forms, s, VARIANT) for s in sets]
            # The variant beside what has none, asked for and not.
            for v, p in itertools.product(variants, plain):
                cases += [case(library, forms, (v, p), asked) for asked in (None, VARIANT)]
            cases += [case(library, forms, (v,), None) for v in variants]
            cases += [case(library, forms, (p,), VARIANT) for p in plain]
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text(f"[\n{lines}\n]\n")
    print(f"{len(cases)} cases")
