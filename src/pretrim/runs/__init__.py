"""Run folders: trained networks stored as safetensors and JSON."""
