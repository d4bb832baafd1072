"""Metrics: how near samples are to data. Each figure comes with the number of samples it was computed from."""
