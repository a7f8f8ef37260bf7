"""Runs the recipe: `python -m recipes.digits [--workdir DIR] [--resume] [--stages …]`."""

from pathlib import Path

from recipes.command import main

main(Path(__file__).with_name("config.toml"))
