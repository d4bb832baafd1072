"""Evaluation: samples against data or against statistics of data; every figure with what it was computed from."""
