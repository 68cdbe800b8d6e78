"""Models out of seral: exports."""
