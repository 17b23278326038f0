#!/usr/bin/env bash
# Builds, tests and measures the GPU kernels on a machine with an NVIDIA GPU, in under 9 minutes:
#   bench/gpu.sh [--quick] [results folder, default bench/results/<device>]
# Needs nvcc, cmake, ninja, pybind11, torch with CUDA, pytest; no network, no installation, no datasets. Everything is
# logged under <results folder>/logs; a short table comes last. Exit code 0: all stages passed.
set -uo pipefail
cd "$(dirname "$0")/.."
quick=()
if [ "${1:-}" = "--quick" ]; then quick=(--quick); shift; fi
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/python${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
device=$($PYTHON -c 'from bench.gpu import device_folder; print(device_folder())') || { echo "gpu.sh: no GPU that torch can use"; exit 2; }
results=${1:-bench/results/$device}
mkdir -p "$results/logs"
begin=$SECONDS summary=() failed=0

stage() {  # name, limit in seconds, command...
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$results/logs/$name.log" 2>&1
  code=$?
  if [ $code -ne 0 ]; then
    failed=1
    tail -n 25 "$results/logs/$name.log"
  fi
  summary+=("$(printf '%-22s %-9s %4d s   %s' "$name" "$([ $code -eq 0 ] && echo ok || echo "FAILED $code")" $((SECONDS - start)) "$(tail -n 1 "$results/logs/$name.log" | cut -c1-110)")")
}

# Only this GPU's architecture: all of them take minutes and are compiled by every other build.
capability=$($PYTHON -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
stage build 200 env CUDAARCHS="$capability-real" PRISM_BUILD_CUDA=1 $PYTHON setup.py --quiet build_ext --inplace
stage tests 150 $PYTHON -m pytest -q -m "gpu and not slow" -p no:cacheprovider tests/gpu
# One odd shape of every op under each tool; whole suites would take an hour.
for tool in memcheck racecheck; do
  stage "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
    $PYTHON -m pytest -q -m gpu -p no:cacheprovider tests/gpu -k "sanitized"
done
stage benchmark 240 $PYTHON -m bench.gpu "${quick[@]}" --output "$results"
stage model 110 $PYTHON -m bench.gpu_model --output "$results"
grep -A 200 'targets$' "$results/logs/benchmark.log" | cut -c1-150 | tail -n 70
cat "$results/logs/model.log" | tail -n 6
printf '%s\n' "" "${summary[@]}" "total $((SECONDS - begin)) s; results: $results"
exit $failed
