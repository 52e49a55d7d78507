"""Data sets, recipes, protocols and the training loop. The data itself stands in train/."""
