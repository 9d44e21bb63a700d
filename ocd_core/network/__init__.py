"""The base network: cut at a layer, moved per sample, trained, loaded."""
