"""Model of LiteRT's converter and quantiser: the operators, activations and constants of the file for a network."""
