"""Log-probabilities of many rows that begin alike, with gradients: the engine under both phases."""
