"""Engines in processes of their own: frames between them and us, and who starts, watches and replaces them."""
