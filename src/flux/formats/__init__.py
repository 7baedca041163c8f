"""What is in a weight file? Its header or pickle, how its numbers are stored, and the way into a model."""
