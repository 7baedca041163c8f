"""Pages, plots and sheets of all studies."""
