"""Trained weights: what they are (manifest, entry), where they are kept (cache), where they come from (sources)."""
