"""nnU-Net v2 model folders, read without nnU-Net: plans and data set by an allow-list, checkpoints without running them."""
