#!/bin/bash
#SBATCH --job-name=faceqan
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
# Usage: sbatch slurm.sh PHOTOS RUN, both on storage that all nodes share. Sent again after the time
# is up, it goes on where it stopped.
# With GPUs: add `#SBATCH --gpus-per-task=N`; Ray finds them by itself.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0       # nobody is told of the use
export RAY_memory_monitor_refresh_ms=0 # Slurm and the system see to memory
port=6379
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --port=$port --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 15
srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" \
  ray start --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 15
faceqan-toolkit align-and-score "$1" -o "$2" --preset fast --engine ray --ray-address "$head:$port"
