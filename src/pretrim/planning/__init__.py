"""From a network and limits to a `Plan`: how many filters each layer keeps."""
