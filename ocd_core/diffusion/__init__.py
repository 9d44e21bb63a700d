"""The conditional diffusion model over Δ: schedules, denoisers, training (Alg. 1) and samplers (Alg. 2)."""
