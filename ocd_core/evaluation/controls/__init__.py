"""What OCD is compared with: controls that could explain a gain without diffusion, and the nearest neighbour.

Everything is fitted on the training split, and chosen on the training or the validation split.
"""
