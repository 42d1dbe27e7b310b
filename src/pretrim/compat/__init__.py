"""Other libraries: workarounds of their defects, each with its report; optional packages, and plugins."""
