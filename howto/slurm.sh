#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8
#SBATCH --time=24:00:00 --signal=USR1@300 --requeue --open-mode=append
srun --kill-on-bad-exit=1 swirl fit --config "$1" --trainer.strategy fsdp --trainer.devices 8 --trainer.num_nodes 2
