"""Runs the recipe: `python -m recipes.asterisk [--workdir DIR] [--resume] [--stages …]`."""

from pathlib import Path

from recipes.command import main

main(Path(__file__).with_name("config.toml"))
