"""From a plan to a slim network."""
