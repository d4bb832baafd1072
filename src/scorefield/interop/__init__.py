"""Readers of weights that other projects have released: key maps and nothing else."""
