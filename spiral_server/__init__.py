"""Spiral's server: takes in what engines say, keeps it, shows it to viewers and passes commands back."""
