"""What several test files use: small tasks, params, stores, runs and workspaces."""
