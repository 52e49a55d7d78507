"""report.html: one page without a server, with its style and script in it."""
