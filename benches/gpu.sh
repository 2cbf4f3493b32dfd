#!/usr/bin/env bash
# Runs on a machine with an NVIDIA GPU, from the project's folder, what only a GPU can show:
#
#     cargo bench --bench gpu --no-run        # anywhere; prints the program's path
#     benches/gpu.sh PROGRAM [FOLDER]         # there; results go to FOLDER (./gpu-results)
#
# It needs a driver for CUDA 12.8 or newer, NVRTC and cuBLASLt; from Python's wheels, for instance:
#     pip install nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12
set -euo pipefail
program=${1:?usage: benches/gpu.sh PROGRAM [FOLDER]}
folder=${2:-gpu-results}
mkdir -p "$folder"
{
  date --iso-8601=seconds
  command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
  "$program" --json "$folder/gpu.json" "${@:3}"
} 2>&1 | tee "$folder/gpu.txt"
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$program" --sanitize 2>&1 | tee "$folder/$tool.txt"
  done
else
  echo "compute-sanitizer is not installed: no step was watched by it" | tee "$folder/memcheck.txt"
fi
