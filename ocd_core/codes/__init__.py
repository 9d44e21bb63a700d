"""What the diffusion model sees: codes of Δ, and conditions I(x) with their encoders."""
