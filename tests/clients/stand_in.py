"""Stands in for programs in the documents' examples that do too much to be run: checks their arguments.

The first argument is the name of the program it stands in for; test_examples.py puts such commands on the PATH. It ends
with 0 if what was asked for exists, and else says what does not.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(os.environ["EXAMPLES_ROOT"])
AFTERIMAGE = os.environ["EXAMPLES_AFTERIMAGE"]
# `generate` makes pictures in so many steps where an example does not say.
FEW_STEPS = "2"
# Flags, each with a value, that only a build with some cargo feature takes.
FLAGS_OF_FEATURES = {"--otlp-endpoint": "otlp"}


def must(is_so: bool, what: str) -> None:
    if not is_so:
        sys.exit(f"{sys.argv[1]}: {what}")


def values(arguments: list[str], *flags: str) -> list[str]:
    """What stands after one of these flags."""
    return [value for flag, value in zip(arguments, arguments[1:], strict=False) if flag in flags]


def help_of(command: str) -> str:
    return subprocess.run([AFTERIMAGE, command, "--help"], check=True, capture_output=True, text=True).stdout


def features() -> list[str]:
    """Those that the program is built with."""
    version = subprocess.run([AFTERIMAGE, "--version"], check=True, capture_output=True, text=True).stdout
    return version.partition("features: ")[2].strip(" )\n").split(",")


def afterimage(arguments: list[str]) -> None:
    """`serve` shows its settings, `generate` draws with the embedded model; of all else the flags must exist."""
    command = arguments[0]
    if command == "serve":
        config = values(arguments, "--config")
        must(all((ROOT / path).exists() for path in config), f"there is no {config}")
        for flag, feature in FLAGS_OF_FEATURES.items():
            if flag in arguments and feature not in features():
                index = arguments.index(flag)
                arguments = arguments[:index] + arguments[index + 2 :]
        subprocess.run([AFTERIMAGE, *arguments, "--print-config"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return
    if command.startswith("-"):
        subprocess.run([AFTERIMAGE, *arguments], check=True)
        return
    if command == "generate" and "--model" not in arguments:
        steps = [] if "--steps" in arguments else ["--steps", FEW_STEPS]
        subprocess.run([AFTERIMAGE, *arguments, *steps], check=True)
        return
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of(command)))
    unknown = {flag.split("=")[0] for flag in arguments[1:] if flag.startswith("-")} - known
    must(not unknown, f"{command} has no {unknown}")


def cargo(arguments: list[str]) -> None:
    """The packages, features, benches and test targets that are named must exist."""
    crates = ROOT / "crates"
    manifests = [tomllib.loads(path.read_text()) for path in crates.glob("*/Cargo.toml")]
    names = {manifest["package"]["name"] for manifest in manifests}
    features = {name for manifest in manifests for name in manifest.get("features", {})}
    targets = {path.stem for folder in ("benches", "tests") for path in crates.glob(f"*/{folder}/*.rs")}
    targets |= {target["name"] for manifest in manifests for target in manifest.get("test", [])}
    own, _, passed_on = (" ".join(arguments) + " ").partition(" -- ")
    own_arguments = own.split()
    must(set(values(own_arguments, "-p", "--package")) <= names, f"no such package in: {own}")
    must(set(",".join(values(own_arguments, "--features")).split(",")) - {""} <= features, f"no such feature in: {own}")
    must(set(values(own_arguments, "--bench", "--test")) <= targets, f"no such target in: {own}")
    if own_arguments[0] == "install":
        must(own_arguments[-1] in names, f"the package must be named in: {own}")
    if own_arguments[0] == "run":
        afterimage(passed_on.split())


def docker(arguments: list[str]) -> None:
    """Files must exist, and the program in the container must take its arguments and variables."""
    if arguments[0] == "compose":
        must(all((ROOT / path).is_file() for path in values(arguments, "-f")), "there is no such compose file")
        return
    if arguments[0] == "build":
        must((ROOT / "Dockerfile").is_file(), "there is no Dockerfile")
        return
    must(arguments[0] == "run" and "afterimage" in arguments, f"{arguments} is not understood")
    split = max(index for index, argument in enumerate(arguments) if argument == "afterimage")
    options, inside = arguments[:split], arguments[split + 1 :]
    os.environ.update(dict(pair.split("=", 1) for pair in values(options, "-e", "--env") if "=" in pair))
    # A file that a volume brings into the container.
    inside = ["config/laptop.toml" if path.startswith("/etc/") else path for path in inside]
    dockerfile = (ROOT / "Dockerfile").read_text()
    entrypoint, command = (instruction(dockerfile, name) for name in ("ENTRYPOINT", "CMD"))
    afterimage(entrypoint[1:] + (inside or command))


def instruction(dockerfile: str, name: str) -> list[str]:
    """The words of ENTRYPOINT or CMD; none where there is no such line."""
    found = re.search(rf"^{name} (.*)", dockerfile, re.MULTILINE)
    return json.loads(found[1]) if found else []


def just(arguments: list[str]) -> None:
    recipes = re.findall(r"^(\w[\w-]*)[^:\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE)
    must(arguments[0] in recipes, f"there is no recipe {arguments[0]}")


if __name__ == "__main__":
    {"afterimage": afterimage, "cargo": cargo, "docker": docker, "just": just}[sys.argv[1]](sys.argv[2:])
