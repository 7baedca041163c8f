"""Demo 1: one picture at every timestep."""
