"""Reading and writing: one file per format, a folder where a format takes several. No torch here."""
