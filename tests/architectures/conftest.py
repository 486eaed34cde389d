"""Small models: more threads than one only get into each other's way."""

import torch

torch.set_num_threads(1)
