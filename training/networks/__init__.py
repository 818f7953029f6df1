"""Networks built of architectures: generators, discriminators, their initialisation, optimisers and EMA."""
