"""Runs every case on both sides in turns and prints a table of medians: seconds, and PyTorch's divided by ours.

    compare.py --ours PROGRAM --afterimage PROGRAM --python PYTHON [--repeats N] [--cases forward-f32,...] [--json FILE]

Both programs have the model loaded and are warm; in every round one does its work while the other waits. Peak memory is
the largest resident set of each process, loading included.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
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

    def arguments(self, model):
        cache = [json.dumps(self.cache)] if self.cache else []
        return [self.what, model, self.dtype, str(self.number), *cache]


CASES = [
    Case("forward-f32", "forward", "dit-xl-2-256", "f32", 256, operations=475e9),
    Case("forward-bf16", "forward", "dit-xl-2-256", "bf16", 256, operations=475e9),
    Case("decode-f32", "decode", "dit-xl-2-256", "f32", 256, operations=622e9),
    Case("decode-bf16", "decode", "dit-xl-2-256", "bf16", 256, operations=622e9),
    Case("request-f32", "request", "embedded", "f32", 25, operations=36e9),
    Case("request-bf16", "request", "embedded", "bf16", 25, operations=36e9),
    Case("cached-request-f32", "request", "embedded", "f32", 25, cache=CACHE),
]


class Side:
    """A process that answers lines."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answers = []

    def wait_until_ready(self):
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            raise SystemExit(f"{self.process.args} did not start: {line}")

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


def folder(name, program, place):
    if name == "embedded":
        return "embedded", str(EMBEDDED)
    path = str(Path(place) / name)
    if not os.path.exists(path):
        subprocess.run([program, "random-model", "--like", name, path], check=True)
    return path, path


def compare(case, options, place):
    own_model, their_model = folder(case.model, options.afterimage, place)
    ours = Side([options.ours, *case.arguments(own_model)])
    ours.wait_until_ready()
    theirs = Side([options.python, str(HERE / "pytorch_side.py"), *case.arguments(their_model)])
    theirs.wait_until_ready()
    for _ in range(options.repeats):
        ours.measure()
        theirs.measure()
    row = {"case": case.name, "ours": ours.median(), "pytorch": theirs.median()}
    row["ratio"] = row["pytorch"] / row["ours"]
    row["range"] = [min(answer["seconds"] for answer in ours.answers), max(answer["seconds"] for answer in ours.answers)]
    if case.cache:
        row["cached_steps"] = [ours.answers[-1]["cached_steps"], theirs.answers[-1]["cached_steps"]]
    row["peak_gb"] = [ours.end(), theirs.end()]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ours", "afterimage", "python"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--json")
    options = parser.parse_args()
    wanted = options.cases.split(",")
    rows = []
    peaks = " and ".join(f"{peak(options, dtype) / 1e9:.0f} in {dtype}" for dtype in ("f32", "bf16"))
    print(f"multipliers of this machine, GFLOP/s: {peaks}\n", flush=True)
    print("| case | ours | PyTorch | ratio | ours, GFLOP/s | peak memory, ours and PyTorch |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            if case.name not in wanted:
                continue
            row = compare(case, options, place)
            rows.append(row)
            gflops = f"{row['gflops']:.0f}" if row["gflops"] else ""
            memory = " / ".join(f"{peak:.2f} GB" for peak in row["peak_gb"])
            cached = f" ({row['cached_steps'][0]}, {row['cached_steps'][1]} steps reused)" if "cached_steps" in row else ""
            print(
                f"| {case.name}{cached} | {row['ours']:.3f} s | {row['pytorch']:.3f} s | {row['ratio']:.2f} | {gflops} | {memory} |",
                flush=True,
            )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
