"""Tests; folders mirror agseg."""
