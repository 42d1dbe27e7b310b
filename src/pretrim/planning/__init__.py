"""Planning: from a network and limits to a `Plan`, which says how many filters each layer keeps."""
