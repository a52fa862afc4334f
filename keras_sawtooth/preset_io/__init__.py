"""Presets: `from_preset`, `save_to_preset`, and the checks of what is loaded."""
