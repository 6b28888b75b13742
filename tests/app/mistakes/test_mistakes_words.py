"""Other tools' words, where a user of theirs would put them: each is told what Etude calls it."""

import pytest
from mistaken import Mistake, check, config, write


def theirs(section, line, *ours):
    """A line in the words of another tool."""
    key = line.partition(" = ")[0]
    return Mistake(f"{section} {key}", (key, "Etude calls this", *ours), edit={section: line}, at=line)


WORDS = [
    theirs("train", "gradient_clip_val = 1.0", "train.clip_grad"),
    theirs("train", "accumulate_grad_batches = 2", "train.accumulate"),
    theirs("train", "max_epochs = 3", "train.max_duration"),
    theirs("train", "check_val_every_n_epoch = 1", "train.eval_every"),
    theirs("train", "num_sanity_val_steps = 2", "train.sanity_batches"),
    theirs("train", "overfit_batches = 1", "train.overfit"),
    theirs("train", "fast_dev_run = true", "train.limit_train"),
    theirs("train", "per_device_train_batch_size = 8", "train.batch_size", "all ranks"),
    theirs("train", "gradient_accumulation_steps = 8", "train.accumulate"),
    theirs("train", "max_grad_norm = 1.0", "train.clip_grad"),
    theirs("train", "num_train_epochs = 3", "train.max_duration"),
    theirs("train", "bf16 = true", "train.precision"),
    theirs("train", "save_total_limit = 2", "train.keep_last"),
    theirs("train", 'metric_for_best_model = "loss"', "train.monitor"),
    theirs("train", "label_smoothing_factor = 0.1", "loss.label_smoothing"),
    theirs("train", "warmup_steps = 100", "optimizer.learning_rate.warmup"),
    theirs("optimizer", 'lr_scheduler_type = "cosine"', "optimizer.learning_rate.schedule"),
    theirs("train", "accum_grad_multiple_step = 2", "train.accumulate"),
    theirs("train", "gradient_clip_global_norm = 5.0", "train.clip_grad"),
    theirs("optimizer", 'learning_rate_control = "newbob"', "optimizer.learning_rate.schedule"),
    theirs("data", "max_seq_length = 75", "data.max_length"),
    theirs("data", "partition_epoch = 4", "data.epoch_parts"),
    theirs("", "num_epochs = 10", "train.max_duration"),
    theirs("train", "step_freq = 2", "train.accumulate"),
    theirs("train", "cb_freq = 2", "train.log_every"),
    theirs("train", "label_smoothing = 0.1", "loss.label_smoothing"),
    theirs("optimizer", "warmup = 8", "optimizer.learning_rate.warmup"),
    theirs("train", "eval_frequency = 1", "train.eval_every"),
    theirs("", 'criterion = "cross_entropy"', "loss"),
    theirs("model", "n_heads = 2", "model.heads"),
    theirs("model", "num_encoder_layers = 2", "model.encoder_layers"),
    theirs("model", "d_ff = 16", "model.feedforward"),
    theirs("log", "use_tensorboard = true", "log.tensorboard"),
    theirs("run", 'experiment_name = "a"', "run.name"),
    Mistake(
        "Lightning's Trainer",
        ("max_steps", "train.max_duration"),
        words=("train", "translate.toml", "--train.max_steps", "100"),
    ),
    Mistake(
        "HF's logging_steps on the command line",
        ("logging_steps", "train.log_every", "on the command line"),
        words=("train", "translate.toml", "--train.logging_steps=10"),
    ),
]


@pytest.mark.parametrize("mistake", WORDS, ids=str)
def test_a_word_of_another_tool_is_answered_by_etudes(mistake, home, capsys):
    write(home, {"translate.toml": config(mistake.edit)})

    check(mistake, capsys)

    assert not (home / "runs").exists()
