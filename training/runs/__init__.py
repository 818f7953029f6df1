"""The folder of a run and its records: checkpoints, metrics, samples, figures."""
