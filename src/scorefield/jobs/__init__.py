"""What the verbs of the command line do: work on files that can be stopped, resumed and shared, and its records."""
