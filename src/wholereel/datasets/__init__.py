"""Annotated videos: one manifest for all formats, loaders, checks, generated worlds."""
