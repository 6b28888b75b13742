"""Laws of the translation task."""

import math
import sys

import numpy as np
import pytest
import sacrebleu
import torch

from etude.base.errors import ConfigError
from etude.data.feeds.batches import PairBatch, padded
from etude.data.tokens.config import WordConfig
from etude.data.tokens.tokenizers import PAD
from etude.data.tokens.training import train_tokenizer
from etude.model.loss import Loss
from etude.model.losses import CrossEntropy, LossConfig
from etude.model.transformer import Transformer, TransformerConfig
from etude.tasks.translation.task import TranslationConfig, TranslationTask

LINES = ["one two three", "two", "three  one, two", "four one", "two two two four three", "one"]


def small(*, tokenizers=True, loss=None, seed=1, **options):
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(WordConfig(), LINES)
    config = TransformerConfig(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, feedforward=16, dropout=0.0)
    model = Transformer(config, tokenizer.size, tokenizer.size).double()
    chosen = {"source_tokenizer": tokenizer, "target_tokenizer": tokenizer} if tokenizers else {}
    return TranslationTask(model, TranslationConfig(**options), loss=loss, **chosen), tokenizer


def batch_of(tokenizer, pairs, indices):
    sides = []
    for side, bos in ((0, False), (1, True)):
        ids = [tokenizer.encode(pair[side]) for pair in pairs]
        rows, lengths = padded(np.concatenate(ids), np.array([len(one) for one in ids]), bos=bos)
        sides += [torch.from_numpy(rows), torch.from_numpy(lengths)]
    return PairBatch(*sides, tokens=int(sides[3].sum()) - len(pairs), indices=torch.tensor(indices))


def pairs():
    return list(zip(LINES, LINES[1:] + LINES[:1], strict=True))


def evaluated(task, step, *batches):
    task.eval()
    task.metrics = task.configure_metrics()
    with torch.no_grad():
        outputs = [step(batch) for batch in batches]
    return outputs, {name: metric.compute() for name, metric in task.metrics.items()}


def test_one_batch_has_the_loss_of_its_members_alone():
    task, tokenizer = small()

    whole = task.training_step(batch_of(tokenizer, pairs(), range(6)))

    alone = [task.training_step(batch_of(tokenizer, [pair], [i])) for i, pair in enumerate(pairs())]
    torch.testing.assert_close(whole.sum, sum(one.sum for one in alone), rtol=1e-12, atol=0)
    assert whole.count == sum(one.count for one in alone)
    assert isinstance(whole.count, int)


def test_the_loss_is_that_of_the_logits():
    task, tokenizer = small(loss=CrossEntropy(0.1, ignore_index=PAD))
    batch = batch_of(tokenizer, pairs(), range(6))

    loss = task.training_step(batch)

    logits = task.model(batch.source, batch.target[:, :-1])
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.target[:, 1:].flatten(), ignore_index=PAD, label_smoothing=0.1
    )
    torch.testing.assert_close(loss.value, expected)


def test_smoothing_is_for_training_alone():
    task, tokenizer = small(loss=CrossEntropy(0.1, ignore_index=PAD))
    batch = batch_of(tokenizer, pairs(), range(6))

    smoothed = task.training_step(batch)
    plain = task.validation_step(batch).loss

    expected = CrossEntropy(ignore_index=PAD)(task.model(batch.source, batch.target[:, :-1]), batch.target[:, 1:])
    torch.testing.assert_close(plain.value, expected.value)
    assert not torch.allclose(plain.value, smoothed.value)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    task, tokenizer = small(tokenizers=False)
    batches = [batch_of(tokenizer, pairs()[:2], [0, 1]), batch_of(tokenizer, pairs()[2:], [2, 3, 4, 5])]

    outputs, metrics = evaluated(task, task.validation_step, *batches)

    losses = [output.loss for output in outputs]
    mean = sum(float(loss.sum) for loss in losses) / sum(loss.count for loss in losses)
    assert metrics == {"perplexity": pytest.approx(math.exp(mean))}


def test_test_metrics_are_sacrebleu_of_the_written_output_against_the_raw_references():
    task, tokenizer = small()
    raw = ["One, two; three!", "TWO", "three one", "x", "two  two", "one two three four"]
    task.use_references("test", lambda indices: [raw[i] for i in indices])
    order = [3, 0, 5, 1, 4, 2]
    batches = [batch_of(tokenizer, [pairs()[i] for i in part], part) for part in (order[:4], order[4:])]

    outputs, metrics = evaluated(task, task.test_step, *batches)

    written = [""] * 6
    for i, best in zip(order, [best for output in outputs for best in output.outputs], strict=True):
        written[i] = best[0].text
    assert metrics["bleu"] == sacrebleu.corpus_bleu(written, [raw]).score
    assert metrics["chrf"] == sacrebleu.corpus_chrf(written, [raw]).score


def test_validation_translates_the_first_samples_of_the_file_however_they_are_batched():
    task, tokenizer = small(eval_search_samples=3)
    seen = []

    def references(indices):
        seen.extend(indices)
        return [LINES[i] for i in indices]

    task.use_references("val", references)
    order = [5, 2, 4, 0, 1, 3]
    batches = [batch_of(tokenizer, [pairs()[i] for i in part], part) for part in (order[:2], order[2:])]
    _, metrics = evaluated(task, task.validation_step, *batches)

    assert sorted(seen) == [0, 1, 2]
    assert 0 <= metrics["chrf"] <= 100


def test_without_raw_references_the_targets_are_decoded():
    task, tokenizer = small(metrics=["chrf"])
    raw, _ = small(metrics=["chrf"])
    raw.use_references("test", lambda indices: [pairs()[i][1] for i in indices])
    batch = batch_of(tokenizer, pairs(), range(6))

    assert evaluated(task, task.test_step, batch)[1] == evaluated(raw, raw.test_step, batch)[1]


def test_a_metric_that_saw_nothing_is_not_a_number():
    task, _ = small()

    assert all(math.isnan(metric.compute()) for metric in task.configure_metrics().values())


def test_merged_metrics_equal_one_that_saw_everything():
    task, _ = small()
    texts = [("one two three four", "one two three four five"), ("six", "seven"), ("a b c d e", "a b c d")]
    whole, first, second = (task.configure_metrics() for _ in range(3))
    for name in ("bleu", "chrf"):
        whole[name].update([h for h, _ in texts], [r for _, r in texts])
        first[name].update([texts[2][0]], [texts[2][1]])
        second[name].update([h for h, _ in texts[:2]], [r for _, r in texts[:2]])
        first[name].merge(second[name])
        assert first[name].compute() == whole[name].compute()
    whole["perplexity"].update(torch.tensor(3.0), 2)
    first["perplexity"].update(torch.tensor(1.0), 1)
    second["perplexity"].update(torch.tensor(2.0), 1)
    first["perplexity"].merge(second["perplexity"])

    assert first["perplexity"].compute() == whole["perplexity"].compute() == pytest.approx(math.exp(1.5))


def test_a_score_carries_its_signature():
    metric = small()[0].configure_metrics()["bleu"]
    metric.update(["one"], ["one"])
    metric.compute()

    assert metric.signature.startswith("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


@pytest.mark.parametrize(("batch_size", "window"), [(2, 3), (64, 1024), (1, 1)])
def test_predictions_come_in_the_order_of_their_lines_however_they_are_batched(batch_size, window):
    task, _ = small()
    task.train()

    found = list(task.predict([*LINES, "", "two\n"], batch_size=batch_size, window=window))

    alone = [next(task.predict([line])) for line in [*LINES, "", "two"]]
    assert [[one.text for one in best] for best in found] == [[one.text for one in best] for best in alone]
    assert found[6][0].text == ""
    assert [len(best) for best in found[:6]] == [4] * 6
    assert task.training


def test_a_window_of_one_answers_before_the_next_line_is_read():
    task, _ = small()
    read = []

    def lines():
        for line in LINES:
            read.append(line)
            yield line

    next(task.predict(lines(), window=1))

    assert read == LINES[:1]


def test_predict_without_tokenizers_says_what_is_missing():
    task, _ = small(tokenizers=False)

    with pytest.raises(ConfigError, match="predict needs the tokenizers"):
        next(task.predict(["one"]))


def test_a_loss_of_ones_own_is_called_on_logits_and_targets():
    def own(logits, targets):
        return Loss(logits.square().sum(), targets.numel())

    task, tokenizer = small(loss=own)
    batch = batch_of(tokenizer, pairs(), range(6))

    assert task.training_step(batch).count == batch.target[:, 1:].numel()
    assert task.validation_step(batch).loss.count == batch.target[:, 1:].numel()


def test_a_model_of_ones_own_needs_only_logits():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(30, 30)

        def forward(self, source, decoder_input):
            return self.table(decoder_input)

    task = TranslationTask(Table())
    batch = batch_of(small()[1], pairs(), range(6))

    assert task.training_step(batch).count == batch.tokens


def test_missing_sacrebleu_names_the_command_that_installs_it(monkeypatch):
    task, _ = small()
    monkeypatch.setitem(sys.modules, "sacrebleu", None)

    with pytest.raises(ConfigError, match=r"pip install 'etude\[translation\]'"):
        task.configure_metrics()


def test_a_small_task_learns_to_copy():
    task, tokenizer = small()
    task.model.set_dropout("dropout", 0.0)
    batch = batch_of(tokenizer, [(line, line) for line in LINES], range(6))
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        task.training_step(batch).value.backward()
        optimizer.step()

    assert [best[0].text for best in task.predict(LINES)] == LINES


def test_what_configs_give_as_schedules_is_named_and_can_be_set():
    ramp = {"schedule": "linear", "from": 0.0, "to": 0.2, "over": "5 steps"}
    config = TransformerConfig(d_model=8, heads=2, feedforward=8, dropout=ramp, attention_dropout=0.1)
    loss = CrossEntropy.of(LossConfig(label_smoothing=ramp), ignore_index=PAD)
    task = TranslationTask(Transformer(config, 9, 9), loss=loss)

    values = {value.key: value for value in task.scheduled_values()}
    for value in values.values():
        value.apply(0.15)

    assert sorted(values) == ["loss.label_smoothing", "model.dropout"]
    assert loss.label_smoothing == task.model.embedding_dropout.rate == 0.15
    assert task.model.encoder[0].attention.dropout.rate == 0.1
