"""A run: its configuration, its folder, its checkpoints, and how they are read back."""
