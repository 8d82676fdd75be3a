"""Many runs at once: grids, where their runs lie, how they are started, and what came of them."""
