"""Run folders: trained networks as safetensors and JSON."""
