"""What the diffusion sees: codes of Δ, and conditions I(x) with their encoders."""
