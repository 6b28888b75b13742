"""Every recipe composes to what its golden file holds, so that a changed default is seen.

`python tests/app/test_recipes.py` writes the golden files anew, for a change that is meant.
"""

import tomllib
from pathlib import Path

import pytest

from etude.app.cli.show import config_schema
from etude.app.running import build_job
from etude.app.stages.loading import is_pipeline, load_pipeline
from etude.base.config.writing import toml
from etude.tasks.config import load_config

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
GOLDEN = Path(__file__).parent / "golden"


def composed(recipe):
    """The composed config, without where this checkout lies."""
    place = {"run.dir": str(ROOT / "runs")}
    if is_pipeline(recipe):
        text = toml(load_pipeline(recipe, place, build_job).config)
    else:
        text = load_config(recipe, place).toml()
    return text.replace(str(ROOT), "CHECKOUT").replace(str(ROOT.parent), "BESIDE")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_composes_to_its_golden_file(recipe):
    # As values: the width of a line, and so its form, depends on where the checkout lies.
    assert tomllib.loads(composed(recipe)) == tomllib.loads((GOLDEN / recipe.name).read_text())


@pytest.fixture(scope="module")
def rules():
    jsonschema = pytest.importorskip("jsonschema")
    return jsonschema.Draft202012Validator(config_schema())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_schema_accepts_a_recipe_as_written_and_as_composed(recipe, rules):
    rules.validate(tomllib.loads(recipe.read_text()))
    rules.validate(tomllib.loads(composed(recipe)))


if __name__ == "__main__":
    for path in RECIPES:
        (GOLDEN / path.name).write_text(composed(path))
