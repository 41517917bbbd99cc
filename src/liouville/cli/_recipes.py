"""``liouville recipes``: what papers put together, by name."""

import typer


def run_recipes() -> None:
    """List the recipes that 'liouville fit --recipe' knows: name, year, paper, published figure."""
    from ..recipes import IMAGE_RECIPES, RECIPES

    pictures = [(f"{name} (--kind image)", recipe) for name, recipe in IMAGE_RECIPES.items()]
    recipes = [*RECIPES.items(), *pictures]
    width = max(len(name) for name, _ in recipes)
    for name, recipe in sorted(recipes, key=lambda item: item[1].year):
        typer.echo(f"{name:{width}}  {recipe.year}  {recipe.paper}; published: {recipe.figure}")
