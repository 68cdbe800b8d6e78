"""The model gets out."""
