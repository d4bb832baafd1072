"""The law of x_t and what follows from it: schedules, noises, the SDE, denoisers, exact oracles."""
