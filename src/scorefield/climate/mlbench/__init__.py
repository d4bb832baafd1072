"""CORDEX ML-Bench (WCRP-CORDEX/ml-benchmark): its files, the runs that it asks for, and submissions in its layout."""
