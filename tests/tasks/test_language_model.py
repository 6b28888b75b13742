"""Laws of the language-model task."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import etude
from etude.base.errors import ConfigError
from etude.data.feeds.text_batches import TextBatch
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.tokenizers import BOS, EOS, PAD, UNK
from etude.data.tokens.training import train_tokenizer
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import InitConfig, initialise
from etude.model.losses import CrossEntropy, CrossEntropyWithZ
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.tasks.language_model.task import LanguageModelConfig, LanguageModelTask
from etude.train.task import StepOutput

ALL = ["perplexity", "bits_per_byte", "accuracy"]
QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


def rows_of(tokens, **more):
    targets = tokens[:, 1:].clone()
    targets[0, 2] = -100
    return TextBatch(tokens[:, :-1], targets, int((targets != -100).sum()), 31.5, **more)


def tokens_of(*shape, seed=3, vocabulary=17):
    return torch.randint(4, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def task_of(kind="decoder", *, loss=None, tokenizer=None, vocabulary=17, init=None, model=None, **options):
    if kind == "decoder":
        sizes = {"layers": 1, "heads": 2, "d_model": 16, "max_positions": 32}
        network = Decoder(DecoderConfig(**sizes | (model or {})), vocabulary, init)
    else:
        sizes = {"type": kind, "layers": 1, "d_model": 16}
        network = Recurrent(RecurrentConfig(**sizes | (model or {})), vocabulary)
    initialise(network, 1, {"*.weight*": "normal(0.3)"})
    return LanguageModelTask(network, LanguageModelConfig(**options), loss=loss, tokenizer=tokenizer)


def evaluated(task, *batches, step="validation_step"):
    task.eval()
    task.metrics = task.configure_metrics()
    with torch.no_grad():
        outputs = [getattr(task, step)(batch) for batch in batches]
    return outputs, {name: metric.compute() for name, metric in task.metrics.items()}


def loss_of(returned):
    return returned.loss if isinstance(returned, StepOutput) else returned


every_kind = pytest.mark.parametrize("kind", ["decoder", "lstm", "gru"])


@every_kind
def test_the_loss_is_torchs_of_the_logits(kind):
    task, batch = task_of(kind, loss=CrossEntropy(0.1)), rows_of(tokens_of(3, 9))

    loss = loss_of(task.training_step(batch))

    logits = task.model(batch.inputs).flatten(0, 1)
    expected = F.cross_entropy(logits, batch.targets.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss.value, expected)
    assert loss.count == 23


@every_kind
@pytest.mark.parametrize("step", ["validation_step", "test_step"])
def test_evaluation_reports_the_plain_loss_and_its_metrics(kind, step):
    task = task_of(kind, loss=CrossEntropyWithZ(0.1, 0.5), metrics=ALL)
    batches = [rows_of(tokens_of(3, 9)), rows_of(tokens_of(2, 5, seed=4))]

    outputs, metrics = evaluated(task, *batches, step=step)

    logits = torch.cat([task.model(batch.inputs).flatten(0, 1) for batch in batches]).detach()
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    plain = float(F.cross_entropy(logits, targets))
    count = int((targets != -100).sum())
    assert sum(float(one.loss["cross_entropy"].sum) for one in outputs) / count == pytest.approx(plain, rel=1e-5)
    assert {one.loss["z_loss"].weight for one in outputs} == {0.0}
    assert metrics["perplexity"] == pytest.approx(math.exp(plain), rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(plain * count / math.log(2) / 63, rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(float((logits.argmax(-1) == targets).sum()) / count)


def test_metrics_of_parts_merge_to_those_of_the_whole():
    task, batches = task_of(metrics=ALL), [rows_of(tokens_of(2, 9, seed=seed)) for seed in (1, 2, 3)]
    _, whole = evaluated(task, *batches)
    parts = []
    for batch in batches:
        evaluated(task, batch)
        parts.append(task.metrics)

    for other in parts[1:]:
        for name, metric in parts[0].items():
            metric.merge(other[name])

    assert {name: metric.compute() for name, metric in parts[0].items()} == pytest.approx(whole)


def test_training_takes_padded_rows_of_the_vocabulary_in_and_evaluation_does_not():
    task, batch = task_of(model={"vocabulary_multiple": 32}, metrics=["perplexity"]), rows_of(tokens_of(3, 9))

    trained = task.training_step(batch).value
    (output,), _ = evaluated(task, batch)

    hidden = task.model.hidden(batch.inputs).flatten(0, 1)
    weight, targets = task.model.output_weight, batch.targets.flatten()
    torch.testing.assert_close(trained, F.cross_entropy(hidden @ weight.T, targets))
    torch.testing.assert_close(output.loss.value, F.cross_entropy(hidden @ weight[:17].T, targets))


def test_documents_and_positions_reach_the_model():
    whole = tokens_of(1, 9)
    documents = torch.tensor([[0] * 3 + [1] * 5], dtype=torch.int32)
    task = task_of(model={"preset": "gpt2"})
    more = [{}, {"documents": documents}, {"positions": torch.arange(8)[None] + 3}]

    losses = [float(task.training_step(rows_of(whole, **one)).value.detach()) for one in more]

    assert min(abs(losses[0] - losses[1]), abs(losses[0] - losses[2])) > 1e-4


def test_the_pieces_of_a_batch_add_up_to_it():
    task, batch = task_of("lstm"), rows_of(tokens_of(3, 12))

    pieces = task.split_for_tbptt(batch, 4)

    assert [piece.inputs.size(1) for piece in pieces] == [4, 4, 3]
    assert [piece.tokens for piece in pieces] == [int((piece.targets != -100).sum()) for piece in pieces]
    assert sum(piece.tokens for piece in pieces) == batch.tokens
    assert sum(piece.bytes for piece in pieces) == pytest.approx(batch.bytes, abs=1e-12)
    assert torch.equal(torch.cat([piece.targets for piece in pieces], 1), batch.targets)


def test_a_decoder_has_no_state_to_hand_on():
    with pytest.raises(ConfigError, match=r"train\.tbptt_steps needs a model with hidden states"):
        task_of().split_for_tbptt(rows_of(tokens_of(2, 9)), 4)


def stream_batches(seed, rows=3, length=8, count=4):
    """Batches whose rows go on where those of the batch before ended."""
    text = tokens_of(rows, length * count + 1, seed=seed)
    cut = [text[:, start : start + length + 1] for start in range(0, length * count, length)]
    return [TextBatch(one[:, :-1], one[:, 1:], rows * length, rows * length * 1.0) for one in cut]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_carried_state_trains_and_evaluates_as_a_loop_written_by_hand(kind):
    train, val = stream_batches(5), stream_batches(6)
    by_hand = task_of(kind).model
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.5)
    losses = []
    for _ in range(2):
        state = None
        for batch in train:
            for start in (0, 4):
                inputs, targets = (part[:, start : start + 4] for part in (batch.inputs, batch.targets))
                hidden, state = by_hand.hidden(inputs, state)
                state = tuple(tuple(part.detach() for part in layer) for layer in state)
                loss = F.cross_entropy((hidden @ by_hand.output_weight.T).flatten(0, 1), targets.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    state, total, right = None, 0.0, 0
    with torch.no_grad():
        for batch in val:
            hidden, state = by_hand.hidden(batch.inputs, state)
            logits = (hidden @ by_hand.output_weight.T).flatten(0, 1)
            total += float(F.cross_entropy(logits, batch.targets.flatten(), reduction="sum"))
            right += int((logits.argmax(-1) == batch.targets.flatten()).sum())

    task = task_of(kind, metrics=ALL)
    options = {"max_duration": "2 epochs", "optimizer": "sgd", "learning_rate": 0.5, "tbptt_steps": 4, **QUIET}
    result = etude.Trainer(carry_hiddens=True, **options).fit(task, train, val)

    found = [row["train/loss"] for row in result.history if "train/loss" in row]
    assert found == pytest.approx(losses, rel=1e-5)
    assert result.metrics["val/loss"] == pytest.approx(total / 96, rel=1e-5)
    assert result.metrics["val/accuracy"] == pytest.approx(right / 96)
    assert result.metrics["val/bits_per_byte"] == pytest.approx(total / 96 / math.log(2), rel=1e-5)


@pytest.mark.parametrize("cut", ["3 steps", "4 steps", "9 steps"])
def test_a_run_that_was_cut_in_the_middle_of_a_stream_ends_where_an_unbroken_one_does(cut, tmp_path):
    def fitted(duration, folder):
        task = task_of("lstm", model={"dropout": 0.2, "weight_drop": 0.2, "variational": True, "layers": 2})
        options = {"optimizer": "adamw", "learning_rate": 0.01, "tbptt_steps": 4, "carry_hiddens": True, **QUIET}
        trainer = etude.Trainer(max_duration=duration, run_dir=folder, save_every="1 step", **options)
        trainer.fit(task, stream_batches(5), stream_batches(6))
        return torch.cat([value.detach().flatten() for value in task.parameters()])

    fitted(cut, tmp_path / "cut")

    assert torch.equal(fitted("2 epochs", tmp_path / "cut"), fitted("2 epochs", tmp_path / "whole"))


def test_what_configs_give_as_schedules_is_told_of():
    rising = {"schedule": "linear", "from": 0.0, "to": 0.2, "over": "3 steps"}
    task = task_of(model={"dropout": rising})

    assert [value.key for value in task.scheduled_values()] == ["model.dropout"]


def test_rates_of_mup_are_by_the_tasks_names():
    task = task_of(init=InitConfig(scheme="mup", base_width=4, base_head_width=8))

    rates = task.rate_multipliers()

    names = dict(task.named_parameters())
    assert set(rates.values()) == {0.25}
    assert all(name in names for name in rates)


def test_operations_are_counted_for_the_rows_of_the_batch():
    task = task_of()
    short, long = (task.flops_per_token(rows_of(tokens_of(1, length + 1))) for length in (8, 16))

    assert long - short == 12 * 16 * 8


TOKENIZER = train_tokenizer(ByteConfig(), ["abc"])


def speaking(**options):
    return task_of(tokenizer=TOKENIZER, vocabulary=TOKENIZER.size, max_tokens=12, **options)


def test_predict_completes_each_prompt_in_order_whatever_the_batch():
    task = speaking(samples=2)
    prompts = ["one", "", "twenty", "ß", "x"]

    alone, together = (list(task.predict(iter(prompts), batch_size=size)) for size in (1, 16))

    assert [[one.text for one in samples] for samples in alone] == [[one.text for one in s] for s in together]
    assert [len(samples) for samples in alone] == [2] * 5
    assert task.training


def test_what_predicts_leaves_every_part_in_the_mode_that_it_had():
    task = speaking()
    part = next(iter(task.model.children())).eval()

    for act in (task.predict, task.stream, task.score):
        list(act("one" if act == task.stream else ["one"]))

    assert (task.training, task.model.training, part.training) == (True, True, False)


def test_streamed_pieces_are_the_completion():
    task = speaking()

    pieces = list(task.stream("one"))

    (completion,) = next(task.predict(["one"]))
    assert "".join(piece.text for piece in pieces) == completion.text
    assert pieces[-1].end == completion.end
    assert len([piece for piece in pieces if piece.end != "eos"]) == completion.tokens


def test_special_tokens_are_never_completed_with():
    task = speaking(temperature=20.0, samples=40)

    found = {piece.token for piece in task.stream("one")}

    assert not found & {PAD, UNK, BOS}
    assert EOS in found


@pytest.mark.parametrize(("prompt", "first"), [("beginning", [EOS]), ("middle", [])])
def test_a_prompt_begins_a_text_or_stands_in_the_middle_of_one(prompt, first):
    task = speaking(prompt=prompt)

    assert task.tokens_of("a") == [*first, *TOKENIZER.encode("a")]
    assert task.tokens_of("") == [EOS]


def test_every_option_of_the_config_reaches_the_search():
    given = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "samples": 4,
        "seed": 9,
    }

    options = LanguageModelConfig(**given, stop=["end"]).options()

    assert {name: getattr(options, name) for name in given} == given
    assert options.stop == ("end",)
    assert (options.eos, set(options.banned)) == (EOS, {PAD, UNK, BOS})


def test_a_score_is_the_loss_of_the_text_and_its_end():
    task = speaking()

    (scored,) = task.score(["cab"])

    tokens = torch.tensor([[EOS, *TOKENIZER.encode("cab"), EOS]])
    loss = F.cross_entropy(task.model(tokens[:, :-1]).flatten(0, 1), tokens[0, 1:], reduction="sum")
    assert scored.log_probability == pytest.approx(-float(loss.detach()), rel=1e-5)
    assert [token for token, _ in scored.tokens] == ["c", "a", "b", ""]
    assert scored.bytes == 3
    assert scored.perplexity == pytest.approx(math.exp(float(loss.detach()) / 4), rel=1e-5)


def test_predict_and_score_need_a_tokenizer():
    with pytest.raises(ConfigError, match="need the tokenizer"):
        next(task_of().predict(["a"]))


def test_a_module_of_ones_own_is_trained_by_its_logits():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(17, 17)

        def forward(self, tokens):
            return self.embedding(tokens)

    task, batch = LanguageModelTask(Net(), LanguageModelConfig(metrics=ALL)), rows_of(tokens_of(3, 9))

    loss = task.training_step(batch)
    _, metrics = evaluated(task, batch)

    logits = task.model(batch.inputs).flatten(0, 1)
    torch.testing.assert_close(loss.value, F.cross_entropy(logits, batch.targets.flatten()))
    assert metrics["accuracy"] == pytest.approx(float((logits.argmax(-1) == batch.targets.flatten()).sum()) / 23)
