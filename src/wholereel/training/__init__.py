"""The one training loop, how gradients are obtained, and what a run leaves on disk."""
