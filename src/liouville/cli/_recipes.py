"""``liouville recipes``: what papers put together, by name."""

import typer


def run_recipes() -> None:
    """List the recipes that 'liouville fit --recipe' knows: name, year, paper, published figure."""
    from ..flows import RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in sorted(RECIPES.items(), key=lambda item: item[1].year):
        typer.echo(f"{name:{width}}  {recipe.year}  {recipe.paper}; published: {recipe.figure}")
