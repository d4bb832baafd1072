"""Verification of ensembles in physical units against observations: scores, spectra, extremes, intervals."""
