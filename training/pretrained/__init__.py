"""Networks that were trained before: evaluation classifiers, loss networks, feature networks."""
