"""The hf task: its loss against the library's own, packing, metrics, prediction, and a run that goes on."""

import math

import pytest
import torch
import transformers
from hf_folders import CHATML, TEXTS, answers, folder, texts, write_lines

import etude
from etude.base.errors import ConfigError, DataError
from etude.data.feeds.batching import Batching
from etude.data.files.skipped import Policy
from etude.data.tokens.tokenizers import load_tokenizer
from etude.model.losses import CrossEntropy, CrossEntropyWithZ
from etude.tasks.best_lines import BestLines
from etude.tasks.hf.config import HfConfig
from etude.tasks.hf.feed import hf_feed
from etude.tasks.hf.folder import HfModelConfig, load_parts, stored_parts
from etude.tasks.hf.rows import prepare_rows
from etude.tasks.hf.samples import Fields, open_samples
from etude.tasks.hf.task import HfTask
from etude.tasks.task_type import Missing

KINDS = ("gpt2", "llama", "t5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {kind: folder(place / kind, kind) for kind in KINDS} | {"chat": folder(place / "chat", "llama", CHATML)}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The rows of a file for a task."""
    cache = tmp_path_factory.mktemp("cache")

    def rows(task, path, block_size=None):
        source = open_samples(path, Fields())
        return prepare_rows(source, task.encoder, cache, Policy(), length=task.row_length(block_size))

    return rows


def feed(task, table, *, batch_size=4, pack=None, **options):
    return hf_feed(
        table, Batching(seed=1, batch_size=batch_size, **options), seq2seq=task.seq2seq, pad=task.pad, pack=pack
    )


def batches(*arguments, **options):
    return [delivery.batch for delivery in feed(*arguments, **options).epoch(0)]


def trainer(**options):
    defaults = {"device": "cpu", "progress": False, "say": lambda _: None, "loggers": [], "learning_rate": 1e-2}
    return etude.Trainer(**{**defaults, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_librarys_own_where_every_target_counts(kind, folders, rows, tmp_path):
    task = HfTask.from_folder(folders[kind]).eval()
    table = rows(task, answers(tmp_path / "a.jsonl") if kind == "t5" else texts(tmp_path / "t.jsonl"))

    for batch in batches(task, table, evaluation=True):
        loss = task.training_step(batch)
        first = [] if task.seq2seq else [batch.inputs[:, :1].where(batch.attention[:, :1] > 0, -100)]
        labels = torch.cat([*first, batch.targets], 1)
        ids = batch.inputs if task.seq2seq else labels.where(labels != -100, task.pad)
        mask = batch.attention if task.seq2seq else (labels != -100).long()
        own = task.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        assert loss.value.item() == pytest.approx(own.item(), rel=1e-5)
        assert int(loss.count) == int((batch.targets != -100).sum())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_packed_texts_have_the_loss_and_gradient_of_each_alone(kind, folders, rows, tmp_path):
    task = HfTask.from_folder(folders[kind]).eval()
    table = rows(task, texts(tmp_path / "t.jsonl"))
    results = []
    task.check_packing()
    for pack in (None, task.row_length()):
        task.zero_grad()
        losses = [task.training_step(batch) for batch in batches(task, table, pack=pack)]
        sum(loss.sum for loss in losses).backward()
        gradient = torch.cat([p.grad.flatten() for p in task.parameters()])
        results.append((sum(loss.sum.item() for loss in losses), sum(int(loss.count) for loss in losses), gradient))

    alone, packed = results
    assert packed[:2] == pytest.approx(alone[:2], rel=1e-5)
    assert torch.allclose(packed[2], alone[2], atol=1e-5 * float(alone[2].abs().max()))


def test_packs_hold_every_row_and_no_more_than_their_places(folders, rows, tmp_path):
    task = HfTask.from_folder(folders["gpt2"])
    table = rows(task, texts(tmp_path / "t.jsonl"))

    packed = batches(task, table, pack=30, batch_size=1)

    assert sum(batch.tokens for batch in packed) == table.total("targets")
    assert max(batch.inputs.size(1) for batch in packed) <= 30
    assert len(packed) < len(table)


def test_rows_are_as_long_as_is_asked_and_the_model_allows(folders):
    task = HfTask.from_folder(folders["gpt2"])

    assert (task.row_length(), task.row_length(30), HfTask.from_folder(folders["t5"]).row_length()) == (64, 30, 1024)
    with pytest.raises(ConfigError, match="at most the model's 64 positions, but is 65"):
        task.row_length(65)


def test_a_model_that_mixes_packed_texts_is_refused(folders, monkeypatch):
    task = HfTask.from_folder(folders["gpt2"])
    monkeypatch.setattr(task, "_apart", lambda inputs, *_: task.model(input_ids=inputs).logits)

    with pytest.raises(ConfigError, match=r"data\.packing must be off for a gpt2 model"):
        task.check_packing()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_loss(kind, folders, rows, tmp_path):
    task = HfTask.from_folder(folders[kind]).eval()
    table = rows(task, answers(tmp_path / "a.jsonl"))

    sums = [sum(task.training_step(b).sum.item() for b in batches(task, table, batch_size=n)) for n in (1, 7)]

    assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_batches_by_tokens_hold_no_more_than_these(folders, rows, tmp_path):
    task = HfTask.from_folder(folders["gpt2"])
    table = rows(task, texts(tmp_path / "t.jsonl"))

    made = batches(task, table, batch_size=None, batch_tokens=48)

    assert max(batch.inputs.numel() for batch in made) <= 48
    assert sum(batch.tokens for batch in made) == table.total("targets")


def test_metrics_are_those_of_the_whole_split(folders, rows, tmp_path):
    task = HfTask.from_folder(folders["gpt2"])
    table = rows(task, texts(tmp_path / "t.jsonl"))

    found = trainer().validate(task, feed(task, table, evaluation=True))

    nats = found["val/loss"] * table.total("targets")
    size = table.values("bytes", slice(None)).sum()
    assert found["val/perplexity"] == pytest.approx(math.exp(found["val/loss"]))
    assert found["val/bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    assert 0 <= found["val/accuracy"] < 0.5


def test_smoothing_and_z_loss_are_of_training_alone(folders, rows, tmp_path):
    parts = load_parts(HfModelConfig(path=folders["gpt2"]))
    plain = HfTask(parts).eval()
    smoothed = HfTask(parts, loss=CrossEntropy(0.2)).eval()
    squared = HfTask(parts, loss=CrossEntropyWithZ(z_loss=0.1)).eval()
    batch = batches(plain, rows(plain, texts(tmp_path / "t.jsonl")))[0]

    values = [task.validation_step(batch).value.item() for task in (plain, smoothed, squared)]

    assert values == pytest.approx([plain.training_step(batch).value.item()] * 3)
    assert abs(smoothed.training_step(batch).value.item() - values[0]) > 1e-4
    assert squared.training_step(batch)["z_loss"].value.item() > 1
    assert squared.count_targets(batch) == {"cross_entropy": batch.tokens, "z_loss": batch.tokens}


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_answers_are_learnt_and_given(kind, folders, rows, tmp_path):
    task = HfTask.from_folder(folders[kind], max_tokens=12)
    pairs = [{"prompt": f"say {word}", "answer": f"{word} {word}"} for word in ("cat", "dog", "red")]
    table = rows(task, write_lines(tmp_path / "few.jsonl", pairs))

    trainer(max_duration="100 steps").fit(task, feed(task, table))

    found = [one[0].text for one in task.predict(pair["prompt"] for pair in pairs)]
    assert found == [pair["answer"] for pair in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_of_many_are_those_of_each_alone(kind, folders):
    task = HfTask.from_folder(folders[kind], max_tokens=6)
    prompts = ["the cat", "", "a", "one green hill over the"]

    together, alone = list(task.predict(prompts)), [next(task.predict([prompt])) for prompt in prompts]

    assert [one[0].text for one in together] == [one[0].text for one in alone]
    assert [one[0].score for one in together] == pytest.approx([one[0].score for one in alone], abs=1e-4)
    assert together[1][0].text == ""


def test_a_prediction_leaves_the_model_as_the_library_gave_it(folders):
    task = HfTask.from_folder(folders["gpt2"], max_tokens=2)
    before = [module.training for module in task.model.modules()]

    list(task.predict(["the cat"]))
    list(task.score(["the cat"]))

    assert [module.training for module in task.model.modules()] == before == [False] * len(before)


def test_a_prediction_is_the_librarys_greedy_one(folders):
    task = HfTask.from_folder(folders["gpt2"], max_tokens=8).eval()  # a dropout of the library would draw
    given = task.tokenizer("the cat", return_tensors="pt")

    found = next(task.predict(["the cat"]))[0]

    ids = task.model.generate(**given, max_new_tokens=8, do_sample=False, pad_token_id=0)[
        0, given["input_ids"].size(1) :
    ]
    assert found.text == task.tokenizer.decode(ids, skip_special_tokens=True)


def test_a_beam_gives_its_hypotheses_best_first(folders):
    task = HfTask.from_folder(folders["t5"], beam_size=3, max_tokens=5, length_penalty=0.0)

    found = next(task.predict(["the cat sat"]))

    scores = [one.log_probability for one in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)


SAMPLING = [
    {"temperature": 5.0},
    {"temperature": 5.0, "seed": 2},
    {"temperature": 5.0, "top_k": 1},
    {"temperature": 5.0, "top_p": 1e-6},
    {"repetition_penalty": 5.0},
    {"temperature": 0.05},
]


def test_every_option_of_prediction_counts(folders):
    def text(**options):
        task = HfTask.from_folder(folders["gpt2"], max_tokens=12, **options)
        return next(task.predict(["the cat sat on"]))[0].text

    plain = text()
    found = [text(**options) for options in SAMPLING]

    assert found == [text(**options) for options in SAMPLING]
    assert len({plain, found[0], found[1], found[4], found[5]}) == 5
    assert found[2] == found[3] == plain


def test_what_is_drawn_for_a_prompt_does_not_depend_on_its_neighbours(folders):
    task = HfTask.from_folder(folders["gpt2"], max_tokens=8, temperature=2.0)

    alone = next(task.predict(["the cat"]))[0].text

    assert [one[0].text for one in task.predict(["a dog", "the cat"])][1] == alone


def test_temperature_and_beam_exclude_each_other():
    with pytest.raises(ValueError, match="temperature and beam_size exclude each other"):
        HfConfig(temperature=1.0, beam_size=2)


def test_a_prompt_without_room_is_told(folders):
    task = HfTask.from_folder(folders["gpt2"])

    with pytest.raises(DataError, match="leaves no room in the model's 64 positions"):
        list(task.predict(["the cat " * 64]))


def test_a_prompt_without_room_costs_no_other_its_answer(folders):
    task = HfTask.from_folder(folders["gpt2"])
    answers = BestLines(task)
    alone = list(answers.best(["the cat", "a dog"]))

    first, second, third = answers.best(["the cat", "the cat " * 64, "a dog"])

    assert [first, third] == alone
    assert second == Missing("A prompt of 129 tokens leaves no room in the model's 64 positions: shorten it.")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_score_of_a_text_is_its_log_probability(kind, folders):
    task = HfTask.from_folder(folders[kind]).eval()
    ids = [*task.tokenizer(TEXTS[0])["input_ids"], 2]
    with torch.no_grad():
        logits = task.model(torch.tensor([ids])).logits.log_softmax(-1)[0]
    expected = sum(float(logits[place, token]) for place, token in enumerate(ids[1:]))

    assert list(task.score([TEXTS[0]])) == pytest.approx([expected], rel=1e-5)


def test_predict_step_answers_what_stands_before_the_targets(folders, rows, tmp_path):
    task = HfTask.from_folder(folders["chat"], max_tokens=5)
    table = rows(task, write_lines(tmp_path / "one.jsonl", [{"prompt": "say cat", "answer": "cat"}]))

    found = task.predict_step(batches(task, table)[0])

    assert found == [next(task.predict(["say cat"]))]


def test_text_feeds_of_etude_are_taken_with_the_folders_tokenizer(folders):
    task = HfTask.from_folder(folders["gpt2"]).eval()
    own = load_tokenizer(folders["gpt2"] / "tokenizer.json")
    ids = torch.tensor([[3, *own.encode(TEXTS[2]), 3]])  # Etude's ids: the end is 3

    class Batch:
        inputs, targets, tokens, documents, positions = ids[:, :-1], ids[:, 1:], ids.size(1) - 1, None, None

    theirs = torch.tensor([[2, *task.tokenizer(TEXTS[2])["input_ids"], 2]])
    expected = task.model(input_ids=theirs, labels=theirs).loss

    assert task.training_step(Batch).value.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("cut", [1, 7])
def test_a_run_that_was_cut_ends_where_an_unbroken_one_does(cut, folders, rows, tmp_path):
    def run(name, until):
        task = HfTask.from_folder(folders["t5"])
        table = rows(task, answers(tmp_path / "a.jsonl"))
        options = {"run_dir": tmp_path / name, "save_every": "1 step", "learning_rate": 1e-3}
        trainer(max_duration=f"{until} steps", **options).fit(task, feed(task, table, workers=0))
        return task.state_dict()

    run("cut", cut)

    found, whole = run("cut", 9), run("whole", 9)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_run_needs_its_model_folder_no_more(folders, tmp_path):
    parts = load_parts(HfModelConfig(path=folders["gpt2"]))
    task = HfTask(parts, HfConfig(max_tokens=5))
    trainer().save(tmp_path / "saved", task)
    parts.save(tmp_path / "tokenizers")

    again = HfTask.load(tmp_path / "saved", parts=stored_parts(tmp_path / "tokenizers"), config=HfConfig(max_tokens=5))

    assert list(again.predict(TEXTS)) == list(task.predict(TEXTS))
    assert isinstance(again.model, transformers.GPT2LMHeadModel)
    assert again.model.lm_head.weight is again.model.transformer.wte.weight


def test_a_zero_of_an_older_run_is_read_as_off():
    assert HfConfig(top_k=0).top_k is None
    assert HfConfig(top_k=5).options.top_k == 5
