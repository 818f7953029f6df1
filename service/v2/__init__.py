"""The Open Inference Protocol (version 2), with the extensions of Triton that the service has."""
