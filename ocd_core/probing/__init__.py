"""What OCD can gain in a layer, found before any diffusion model is trained."""
