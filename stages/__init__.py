"""The pipeline's stages: thin scripts that read params, call `ocd_core` and write artifacts."""
