"""Workarounds of defects in other libraries, each with where it is known."""
