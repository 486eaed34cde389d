"""Several processes: ranks, strategies, sharded weights, checkpoints that a killed run can go on from."""
