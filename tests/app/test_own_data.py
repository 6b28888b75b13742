"""A recipe with data of one's own."""

from pathlib import Path

from etude.tasks.config import load_config

RECIPE = Path(__file__).parent.parent.parent / "recipes" / "translation.toml"


def test_own_training_data_leaves_the_generated_splits_of_a_recipe_out(tmp_path):
    own = ["--data.train", str(tmp_path / "x.tsv"), "--data.val", str(tmp_path / "y.tsv")]

    loaded = load_config(RECIPE, own)

    assert loaded.config.data.test is None
    assert loaded.data["data"]["test"] is False
    assert loaded.config.data.val == tmp_path / "y.tsv"
    assert len(loaded.notes) == 1
    assert "data.test" in loaded.notes[0]


def test_the_recipe_itself_keeps_its_generated_splits():
    loaded = load_config(RECIPE, ["--train.max_duration", "3 steps"])

    assert (loaded.config.data.train, loaded.config.data.val, loaded.config.data.test) == ("numbers",) * 3
    assert loaded.notes == ()


def test_a_composed_config_runs_as_it_is(tmp_path):
    own = ["--data.train", str(tmp_path / "x.tsv"), "--run.dir", str(tmp_path)]
    loaded = load_config(RECIPE, own)
    (tmp_path / "config.toml").write_text(loaded.toml())

    again = load_config(tmp_path / "config.toml")

    assert again.config == loaded.config
