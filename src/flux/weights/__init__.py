"""Where do weights come from? Find, download, read, convert, load, identify."""
