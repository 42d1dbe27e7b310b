"""A model becomes a frozen `Network`: channel groups, operators, and every size as a function of the widths."""
