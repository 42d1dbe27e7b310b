"""Compatibility with other libraries: workarounds for their defects, optional packages, and plugins."""
