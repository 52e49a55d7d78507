"""From a Volume to a LabelMask on the same grid: prepare, tile, predict, restore, clean up."""
