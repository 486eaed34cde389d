"""How recorders work: jobs in parallel processes, simulators, a browser."""
