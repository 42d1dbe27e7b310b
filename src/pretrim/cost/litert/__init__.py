"""What LiteRT's converter and quantiser make of a network: the operators, activations and constants of its file."""
