"""How is a picture edited? One file per method."""
