"""PID 1: signals, workers, probes, exit codes and their journal."""
