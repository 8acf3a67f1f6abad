"""Files to tensors and back: video, stills, sound."""
