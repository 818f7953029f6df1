"""The folder of a run and what is recorded in it: checkpoints, metrics, samples, figures."""
