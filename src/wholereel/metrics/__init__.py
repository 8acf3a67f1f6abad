"""Counts, and the values made of them: counts first, ratio last, so that processes and restarts agree."""
