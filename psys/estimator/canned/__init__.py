"""Ready-made models: linear, deep, and both together, with a head for each kind of label."""
