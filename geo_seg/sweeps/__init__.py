"""Many runs: launching them, searching among them, comparing them."""
