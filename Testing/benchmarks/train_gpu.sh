#!/usr/bin/env bash
# Train the compact CT prior on a machine with one or more NVIDIA GPUs.
#
#   Testing/benchmarks/train_gpu.sh FOLDER [OUTPUT] [PATIENT_REGEX]
#
# FOLDER         CT volumes (NRRD, NIfTI, MetaImage) or DICOM series, one in each sub-folder; axial CT in HU
# OUTPUT         where the prior goes; default: trained-prior
# PATIENT_REGEX  finds the patient in a file's name or path (its first group, if it has one); default: the file's name.
#                Needed wherever a patient has more than one volume: the held-out loss counts on patients not seen.
#
# One process a GPU, through torchrun.  When run again with the same OUTPUT it goes on where it stopped, also on another
# number of GPUs.  Further settings by environment, with their defaults:
#
#   PYTHON=python3      an interpreter with this package's requirements and a CUDA build of torch
#   MODEL_ID=ct-compact-gpu
#   IMAGES=8000000      training images, of all GPUs together
#   BATCH=64            images a step and GPU
#   SIZE=128            rows and columns of a training image
#   HOLD_OUT=           comma-separated patients for the held-out loss; by default the last 15 percent
#   INITIAL=            id or file of a prior whose weights and sizes to start from
#   LIGHT=              so many levels, from the finest on, have one block: 2 saves a third of the time of an evaluation
#   TEACHER=0           images at the start from which INITIAL is imitated, as LIGHT asks for
#   SHARES=             shares of the images for volumes with a text in their name, such as "limb=0.12,native=0.3"
#   WORKERS=            processes that prepare batches, for each GPU; by default as the number of CPU cores allows
#   COMPILE=1           0: without torch.compile
set -euo pipefail

usage() {
    sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p;}' "$0"
}

if [[ $# -lt 1 || $# -gt 3 || $1 == -h || $1 == --help ]]; then
    usage
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
    exit 2
fi
if [[ ! -d $1 ]]; then
    echo "$1: no such folder; name the folder that holds the CT volumes" >&2
    exit 2
fi
data=$(cd "$1" && pwd)
output=${2:-trained-prior}
mkdir -p "$output"
output=$(cd "$output" && pwd)
regex=${3:-}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())') || {
    echo "$python cannot import torch: install the package's requirements, or name another one with PYTHON=" >&2
    exit 2
}
if [[ $gpus -lt 1 ]]; then
    echo "torch finds no CUDA GPU: install a driver and a CUDA build of torch, or use: diffusionmbir train" >&2
    exit 2
fi
cores=$("$python" -c 'import os; print(os.cpu_count() or 1)')
most=$((cores / gpus > 1 ? cores / gpus - 1 : 1))
workers=${WORKERS:-$((most < 12 ? most : 12))}

# The learning rate grows with the root of the images a step, from 6e-4 at 16 (where it was tuned).
program='
import math, os, sys
from dataclasses import replace
from DiffusionMBIRLib.models import find, read_card
from DiffusionMBIRLib.monitor import Console
from DiffusionMBIRLib.priors.compact import CompactConfig
from DiffusionMBIRLib.training.loop import TrainSettings, train

data, output, regex, model_id, images, batch, size, hold_out, workers, compiled, initial, light, teacher, shares = sys.argv[1:]
network = CompactConfig.from_dict(read_card(find(initial)).network) if initial else CompactConfig()
network = replace(network, knows_pixels=True, light_levels=int(light or network.light_levels))
step = int(batch) * int(os.environ["WORLD_SIZE"])
settings = TrainSettings(
    images=int(images), batch=int(batch), size=int(size), learning_rate=min(2e-3, 6e-4 * math.sqrt(step / 16)),
    schedule="cosine", warmup_images=500 * step, ema=0.9995, held_out_images=96, workers=int(workers),
    compile=compiled == "1", teacher_images=int(teacher), snapshot_images=max(1, int(images) // 40),
)
train(
    [data], output, settings=settings, patient_regex=regex or None, hold_out=[p for p in hold_out.split(",") if p],
    network=network, initial=initial or None, model_id=model_id, device="auto", monitor=Console(),
    shares={name: float(share) for name, share in (text.rsplit("=", 1) for text in shares.split(",") if text)},
)
'
model_id=${MODEL_ID:-ct-compact-gpu}
echo "training $model_id on $gpus GPU(s), $workers worker(s) each"
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 \
    "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" --no-python \
    "$python" -c "$program" "$data" "$output" "$regex" "$model_id" "${IMAGES:-8000000}" "${BATCH:-64}" \
    "${SIZE:-128}" "${HOLD_OUT:-}" "$workers" "${COMPILE:-1}" "${INITIAL:-}" "${LIGHT:-}" "${TEACHER:-0}" "${SHARES:-}"

echo
echo "prior:       $output/$model_id.safetensors   (lowest held-out loss; open it with --prior FILE)"
echo "statistics:  $output/stats.jsonl   samples: $output/samples.png   who was held out: $output/split.json"
