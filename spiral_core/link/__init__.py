"""The only input and output of the engine: run directory, run log, command inbox, courier process, training loop."""
