"""Networks built from tables of layers: generators, discriminators, their initialisation, optimisers and EMA."""
