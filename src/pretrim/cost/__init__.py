"""Costs of a network (parameters, MACs, memory, file and arena size) as functions of its layer widths."""
