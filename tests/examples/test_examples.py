"""Every example runs as it stands, offline, and learns what it says."""

import importlib.util
import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Load an example by name, with an empty folder as the current one."""
    monkeypatch.chdir(tmp_path)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_every_example_has_a_test():
    tested = Path(__file__).read_text()

    assert [path.stem for path in sorted(EXAMPLES.glob("*.py")) if f'example("{path.stem}")' not in tested] == []


@pytest.mark.parametrize(
    ("duration", "least"), [("800 steps", 0.4), pytest.param("4000 steps", 0.7, marks=pytest.mark.acceptance)]
)
def test_the_gan_meets_every_cluster(duration, least, example):
    clusters, near = example("gan").main(duration)

    assert clusters == 8
    assert near > least


def test_the_stateful_lstm_learns_and_its_carried_state_helps(example):
    module = example("stateful_lstm")
    metrics = module.main("2 epochs")

    assert metrics["val/loss"] < 1.75
    assert metrics["val/accuracy"] > 0.5


def test_lbfgs_meets_the_curve(example):
    assert example("lbfgs").main() < 5e-3


def test_packed_sequences_are_judged_right(example):
    assert example("packed_sequences").main("3 epochs")["val/accuracy"] > 0.9


def test_own_metric_callback_and_logger_steer_and_watch(example):
    result = example("own_parts").main()

    assert result.reason.startswith("worst recall reached")
    assert len(Path("worst_recall.csv").read_text().splitlines()) >= 2
    assert result.best_step is not None


def test_the_script_moved_to_etude_is_as_good_as_the_one_by_hand(example):
    by_hand, with_etude = example("plain_script").main()

    assert with_etude > 0.95
    assert with_etude > by_hand - 0.03


def test_the_pipeline_finds_the_better_training_and_does_nothing_twice(example, capsys):
    module = example("pipeline")

    first = module.main()
    capsys.readouterr()
    again = module.main()

    assert json.loads(first["better"].path.read_text())["best"] == "quick"
    assert first["quick"].metrics["val/loss"] < 1.0
    assert "Nothing to do: 4 stages are done." in capsys.readouterr().out
    assert again.keys() == first.keys()


def test_a_network_that_grows_begins_with_what_it_knew_and_learns_more(example):
    before, after = example("pretraining").main()

    assert after < 0.8 * before
