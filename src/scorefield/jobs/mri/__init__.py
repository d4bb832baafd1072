"""Reconstruction of MR images from k-space."""
