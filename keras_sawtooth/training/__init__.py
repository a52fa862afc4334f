"""Training in two phases: what a release and a backup do to model and optimizer."""
