"""The one training loop: arenas, the data-parallel step, checkpoints, run folders."""
