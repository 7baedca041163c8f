"""Pictures and pages that show what a run has made. Nothing here knows a model."""
