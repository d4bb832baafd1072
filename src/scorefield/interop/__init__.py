"""Readers of weights that others released: formats and key maps, and nothing else."""
