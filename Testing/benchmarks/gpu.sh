#!/usr/bin/env bash
# Measure the engine on a machine with an NVIDIA GPU.
#
#   Testing/benchmarks/gpu.sh [OUTPUT]
#
# OUTPUT   where the results go; default: gpu-results
#
# Runs, in this order: the tests that need CUDA, the networks, a reconstruction beside its bare network evaluations, the
# memory of a reconstruction, the quick benchmark and the whole one (CT and MRI on the bundled volumes, with the rows of
# 4000 evaluations).  Each part writes a log of its own; a part that has succeeded is left out when run again, and the
# benchmark goes on where it was, so that a machine lent for minutes at a time is enough.  Settings by environment:
#
#   PYTHON=python3      an interpreter with this package, its extras report, mri and test, and a CUDA build of torch
#   DEVICE=cuda         cpu runs the same there, to try this script
#   PARTS=              only these, separated by blanks: tests networks reconstruction memory quick full
set -uo pipefail

if [[ $# -gt 1 || ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set -uo/{/^set -uo/d;s/^# \{0,1\}//;p;}' "$0"
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
    exit 2
fi
output=${1:-gpu-results}
mkdir -p "$output" || exit 1
output=$(cd "$output" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
python=${PYTHON:-python3}
device=${DEVICE:-cuda}

if ! "$python" -c 'import torch' 2>/dev/null; then
    echo "$python cannot import torch: install the package's requirements, or name another one with PYTHON=" >&2
    exit 2
fi
if [[ $device == cuda* ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "torch finds no CUDA GPU: install a driver and a CUDA build of torch, or try this script with DEVICE=cpu" >&2
    exit 2
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

failed=()
part() { # NAME COMMAND...
    local name=$1
    shift
    [[ -n ${PARTS:-} && " $PARTS " != *" $name "* ]] && return
    if [[ -e $output/$name.done ]]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name"
    if "$@" 2>&1 | tee "$output/$name.log"; then
        touch "$output/$name.done"
    else
        failed+=("$name")
    fi
}

"$python" -c 'import json, sys; from DiffusionMBIRLib.benchmark.results import machine; json.dump(machine(), sys.stdout, indent=1)' \
    >"$output/machine.json"
both() { # the benchmark of both modalities, with what follows
    "$python" -m DiffusionMBIRLib benchmark --device "$device" --compile -o "$output/ct" "$@" &&
        "$python" -m DiffusionMBIRLib benchmark --modality MR --device "$device" --compile -o "$output/mr" "$@"
}

# First of all the comparison with the CPU; rehearsals play a device, which is of no use beside a real one.
part tests "$python" -m pytest -q -p no:cacheprovider Testing/engine/test_cuda.py Testing/engine \
    -k "(cuda or CUDA or gpu) and not rehearsal"
part networks "$python" Testing/benchmarks/networks.py --device "$device"
part reconstruction "$python" Testing/benchmarks/reconstruction.py --device "$device"
part memory "$python" Testing/benchmarks/memory.py --device "$device"
part quick both --quick
part full both

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}; see the logs in $output" >&2
    exit 1
fi
echo "all results are in $output"
