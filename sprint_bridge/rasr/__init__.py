"""What the ways to RASR have in common, whichever process it runs in."""
