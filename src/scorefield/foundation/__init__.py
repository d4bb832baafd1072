"""What everything stands on: random numbers, errors, files, locks, Fourier and cosine transforms. Imports nothing of ours."""
