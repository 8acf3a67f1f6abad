"""Modules worth a name that several architectures use."""
