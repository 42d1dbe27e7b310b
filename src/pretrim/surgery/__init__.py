"""Surgery: build the slim network of a plan, and remove dead filters from a trained network."""
