"""What a network costs, as functions of its widths."""
