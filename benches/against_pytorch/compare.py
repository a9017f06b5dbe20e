"""Runs every case on both sides in turns and prints a table of medians: seconds, and PyTorch's divided by ours.

    compare.py --ours PROGRAM --python PYTHON [--device cuda:0] [--repeats N] [--cases forward-f32,...] [--json FILE]

A case that fails is said to have failed, and the others go on. Both programs have the model loaded and are warm; in every round one does its work while the other waits. Peak memory is
the largest resident set of each process, loading included.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EMBEDDED = ROOT / "models/emoji-dit"
CACHE = {"Fn_compute_blocks": 4, "Bn_compute_blocks": 0, "max_warmup_steps": 4, "residual_diff_threshold": 0.12}


@dataclass
class Case:
    name: str
    what: str
    model: str
    dtype: str
    number: int
    cache: dict | None = None
    operations: float | None = None
    # Of torch.compile.
    compile: str | None = None

    def arguments(self, model):
        cache = [json.dumps(self.cache)] if self.cache else []
        return [self.what, model, self.dtype, str(self.number), *cache]

    def flags(self):
        return ["--compile", self.compile] if self.compile else []


CASES = [
    Case("forward-f32", "forward", "dit-xl-2-256", "f32", 256, operations=475e9),
    Case("forward-bf16", "forward", "dit-xl-2-256", "bf16", 256, operations=475e9),
    # Ours quantised, theirs in bf16.
    Case("forward-int8", "forward", "dit-xl-2-256", "int8", 256, operations=475e9),
    Case("decode-f32", "decode", "dit-xl-2-256", "f32", 256, operations=622e9),
    Case("decode-bf16", "decode", "dit-xl-2-256", "bf16", 256, operations=622e9),
    Case("request-f32", "request", "embedded", "f32", 25, operations=36e9),
    Case("request-bf16", "request", "embedded", "bf16", 25, operations=36e9),
    Case("request-int8", "request", "embedded", "int8", 25, operations=36e9),
    Case("cached-request-f32", "request", "embedded", "f32", 25, cache=CACHE),
]


XL = "dit-xl-2-256"
# With random weights hardly two steps are alike: every second step is reused, whatever the distance.
EVERY_SECOND = CACHE | {"residual_diff_threshold": 10.0, "max_continuous_cached_steps": 1}
# 25 steps of two rows, and the picture.
XL_REQUEST = 25 * 475e9 + 622e9
ON_DEVICE = [
    Case("forward-bf16", "forward", XL, "bf16", 256, operations=475e9),
    Case("forward-f32", "forward", XL, "f32", 256, operations=475e9),
    Case("forward-bf16 compiled", "forward", XL, "bf16", 256, operations=475e9, compile="default"),
    Case("decode-bf16", "decode", XL, "bf16", 256, operations=622e9),
    Case("request-bf16", "request", XL, "bf16", 25, operations=XL_REQUEST),
    Case("cached-request-bf16", "request", XL, "bf16", 25, cache=EVERY_SECOND),
    Case("request-bf16 compiled", "request", XL, "bf16", 25, operations=XL_REQUEST, compile="default"),
    Case("request-bf16 compiled with graphs", "request", XL, "bf16", 25, operations=XL_REQUEST, compile="reduce-overhead"),
    Case("embedded request-bf16", "request", "embedded", "bf16", 25, operations=36e9),
    Case("32 requests together, bf16", "together", XL, "bf16", 25, operations=32 * XL_REQUEST),
]


class Side:
    """A process that answers lines."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answers = []

    def wait_until_ready(self):
        # Libraries talk before it.
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError(f"{self.process.args[0]} did not start")

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.answers.append(json.loads(self.process.stdout.readline()))

    def end(self):
        """The peak of its resident set, in GB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        self.process.stdin.close()
        self.process.wait()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1e6

    def median(self, key="seconds"):
        return statistics.median(answer[key] for answer in self.answers)


def folder(case, program, place):
    if case.model == "embedded":
        return "embedded", str(EMBEDDED)
    path = Path(place) / case.model
    if not path.exists():
        subprocess.run([program, "random-model", case.model, path], check=True)
    if case.what == "decode":
        path = with_one_block(path)
    return str(path), str(path)


def with_one_block(model):
    """The same model with a transformer that takes hardly any memory: to decode, none is needed."""
    path = model.with_name(f"{model.name}-one-block")
    if not path.exists():
        shutil.copytree(model, path, copy_function=os.symlink)
        config, weights = path / "transformer/config.json", path / "transformer/diffusion_pytorch_model.safetensors"
        described = json.loads(config.read_text())
        config.unlink()
        config.write_text(json.dumps(described | {"num_layers": 1}))
        keep_tensors(weights, lambda name: re.match(r"transformer_blocks\.[1-9]", name) is None)
    return path


def keep_tensors(path, wanted):
    """Replaces a link to a safetensors file by a file with some of its tensors."""
    with open(path, "rb") as source:
        length = int.from_bytes(source.read(8), "little")
        described = json.loads(source.read(length))
        kept, values = {}, []
        for name in filter(wanted, described):
            if name == "__metadata__":
                continue
            start, end = described[name]["data_offsets"]
            source.seek(8 + length + start)
            place = sum(map(len, values))
            kept[name] = described[name] | {"data_offsets": [place, place + end - start]}
            values.append(source.read(end - start))
    path.unlink()
    header = json.dumps(kept).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(values))


def sides(case, options, place):
    """Ours, and PyTorch's if it can do the case."""
    own_model, their_model = folder(case, options.ours, place)
    yield Side([options.ours, "--device", options.device, *case.arguments(own_model)])
    # The bundle for GPUs has no copy of the embedded model's folder.
    if case.what != "together" and os.path.exists(their_model):
        their_flags = ["--device", options.device, *case.flags()]
        theirs = replace(case, dtype="bf16") if case.dtype == "int8" else case
        yield Side([options.python, str(HERE / "pytorch_side.py"), *their_flags, *theirs.arguments(their_model)])


def compare(case, options, place):
    both = []
    try:
        for side in sides(case, options, place):
            both.append(side)
            side.wait_until_ready()
        for _ in range(options.repeats):
            for side in both:
                side.measure()
        return row_of(case, both)
    finally:
        for side in both:
            side.process.kill()


def row_of(case, both):
    ours, theirs = both[0], both[1:]
    row = {"case": case.name, "ours": ours.median()}
    if theirs:
        row["pytorch"] = theirs[0].median()
        row["ratio"] = row["pytorch"] / row["ours"]
    row["range"] = [min(answer["seconds"] for answer in ours.answers), max(answer["seconds"] for answer in ours.answers)]
    if case.cache:
        row["cached_steps"] = [side.answers[-1]["cached_steps"] for side in both]
    row["peak_gb"] = [side.end() for side in both]
    row["gflops"] = case.operations / row["ours"] / 1e9 if case.operations else None
    return row


def peak(options, dtype):
    """Floating point operations per second when nothing has to be loaded."""
    side = Side([options.ours, "peak", dtype])
    side.wait_until_ready()
    for _ in range(10):
        side.measure()
    side.end()
    return max(answer["operations"] / answer["seconds"] for answer in side.answers)


def line(row):
    cached = f" ({', '.join(map(str, row['cached_steps']))} steps reused)" if "cached_steps" in row else ""
    theirs = f"{row['pytorch']:.4f} s | {row['ratio']:.2f}" if "pytorch" in row else " | "
    gflops = f"{row['gflops']:.0f}" if row["gflops"] else ""
    memory = " / ".join(f"{peak:.2f} GB" for peak in row["peak_gb"])
    return f"| {row['case']}{cached} | {row['ours']:.4f} s | {theirs} | {gflops} | {memory} |"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ours", "python"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases")
    parser.add_argument("--json")
    return parser.parse_args()


def main():
    options = parse()
    known = CASES if options.device == "cpu" else ON_DEVICE
    wanted = options.cases.split(",") if options.cases else [case.name for case in known]
    rows = []
    if options.device == "cpu":
        peaks = " and ".join(f"{peak(options, dtype) / 1e9:.0f} in {dtype}" for dtype in ("f32", "bf16", "int8"))
        print(f"multipliers of this machine, GFLOP/s: {peaks}\n", flush=True)
    print("| case | ours | PyTorch | ratio | ours, GFLOP/s | peak memory, ours and PyTorch |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for case in (case for case in known if case.name in wanted):
            try:
                row = compare(case, options, place)
            except (BrokenPipeError, OSError, RuntimeError, ValueError) as error:
                print(f"| {case.name} | failed: {error} | | | | |", flush=True)
                rows.append({"case": case.name, "error": str(error)})
                continue
            rows.append(row)
            print(line(row), flush=True)
            if options.json:
                Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
