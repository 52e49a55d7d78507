"""Numbers about masks: volumes, overlap, surface distance, significance. numpy and scipy only."""
