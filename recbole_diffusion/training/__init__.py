"""Training: trainers, resuming, signals, and the check that losses and weights are finite."""
