"""Reading and writing: one file per format. No torch here."""
