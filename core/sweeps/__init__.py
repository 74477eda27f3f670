"""Many runs of one experiment: seeds, grids and searches."""
