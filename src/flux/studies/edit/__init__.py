"""Demo 4: a source and its edits."""
