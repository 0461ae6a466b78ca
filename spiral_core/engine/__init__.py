"""The decisions of a run: configuration, state, step, controls, probes. No socket, no thread, no clock, no file."""
