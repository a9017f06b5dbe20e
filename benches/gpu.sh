#!/usr/bin/env bash
# Ours on an NVIDIA GPU, in under 8 minutes: kernels and pictures compared with the processor's, then speed against PyTorch
# with diffusers in turns. Run it in the unpacked bundle that deploy/cuda/build makes, on a machine with a driver, CUDA 13's
# libraries (those that PyTorch brings will do) and a python3 with torch and diffusers (cache-dit where it is there).
# Writes gpu-results.json and gpu-results.md; a section that fails is said to have failed, and the others go on.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

device="${1:-cuda:0}"
results="$PWD/gpu-results"
if ! [ -x bin/parity ]; then
    echo "gpu.sh: there is no bin/parity beside it; run it in the unpacked target/cuda/gpu-bench.tar.xz of deploy/cuda/build" >&2
    exit 1
fi
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
if [ -z "$gpu" ] && ! python3 -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null; then
    echo "gpu.sh: there is no NVIDIA GPU: nvidia-smi names none, and libcuda.so.1, the driver's, cannot be opened" >&2
    exit 1
fi
if [ -z "${CUDA_HOME:-}" ]; then
    # CUDA's libraries as PyTorch's packages bring them; otherwise the program looks for them by itself.
    CUDA_HOME=$(python3 -c 'import nvidia, os; print(os.path.join(list(nvidia.__path__)[0], "cu13"))' 2>/dev/null) &&
        export CUDA_HOME || unset CUDA_HOME
fi

section() {
    printf '\n## %s\n\n' "$1" | tee -a "$results.md"
    shift
    "$@" 2> >(tail -n 30 >&2) | tee -a "$results.md" || printf '\nThis section failed.\n' | tee -a "$results.md"
}

printf '# %s\n' "${gpu:-a GPU that nvidia-smi does not name}" >"$results.md"
section 'Kernels' timeout 120 bin/parity
section 'Pictures' timeout 120 bin/against_pytorch --device "$device" likeness embedded models/*
section 'Speed' timeout 420 python3 compare.py --ours bin/against_pytorch --python python3 --device "$device" \
    --repeats 10 --json "$results.json"
if command -v ncu >/dev/null; then
    model=$(mktemp -d)
    bin/against_pytorch random-model dit-xl-2-256 "$model/dit"
    section 'Kernels of one forward of DiT-XL/2 in bf16' timeout 120 python3 kernels.py bin/against_pytorch \
        --device "$device" forward "$model/dit" bf16 256
    rm -rf "$model"
fi
