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
folder=$(cd "$folder" && pwd)
# Kernels that were compiled are kept there, for this run and the next ones.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$folder/cache}
failed=0
{
  date --iso-8601=seconds
  nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader || true
  "$program" --json "$folder/gpu.json" "${@:3}"
} 2>&1 | tee "$folder/gpu.txt" || failed=1
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    # NVIDIA's own libraries ask drivers for what older ones do not have: that is no error.
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 1 "$program" --sanitize 2>&1 |
      tee "$folder/$tool.txt" || failed=1
  done
else
  echo "compute-sanitizer is not installed: no step was watched by it" | tee "$folder/memcheck.txt"
fi
exit "$failed"
