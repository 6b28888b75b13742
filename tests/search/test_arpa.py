"""Laws of n-gram models in ARPA format, against hand-computed values and sums over their vocabulary."""

import math
import random
from itertools import product

import pytest

from etude.base.errors import DataError
from etude.search.arpa import read_arpa

LN10 = math.log(10)
SMALL = """This line is a comment.

\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.5
-1.2\t</s>
-0.7\ta\t-0.25
-0.9\tb\t-0.125
-2.0\t<unk>

\\2-grams:
-0.4\t<s> a\t-0.0625
-0.3\ta b\t-0.75
-0.2\tb </s>

\\3-grams:
-0.1\t<s> a b

\\end\\
"""
TRIGRAM = ("<s>", "a", "b")


def model_of(tmp_path, text, name="small.arpa"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_arpa(tmp_path / name)


def sentence(model, words):
    context, total = model.start(), 0.0
    for word in words:
        log, context = model.score(context, word)
        total += log
    return total + model.end(context)


@pytest.mark.parametrize(
    ("words", "log10"),
    [
        ("a b", -0.4 - 0.1 + (-0.75 - 0.2)),  # </s>: (a b) has no (a b </s>), backs off to (b </s>)
        ("b a", (-0.5 - 0.9) + (-0.125 - 0.7) + (-0.25 - 1.2)),
        ("", -0.5 - 1.2),
        ("a a", -0.4 + (-0.0625 - 0.25 - 0.7) + (-0.25 - 1.2)),
        ("a zebra b", -0.4 + (-0.0625 - 0.25 - 2.0) + -0.9 + -0.2),
    ],
)
def test_the_log_probability_of_a_text_is_what_backoff_gives_by_hand(tmp_path, words, log10):
    model = model_of(tmp_path, SMALL)

    assert model.order == 3
    assert sentence(model, words.split()) == pytest.approx(log10 * LN10, rel=1e-12)


def test_a_model_without_unknown_words_takes_them_for_all_but_impossible(tmp_path):
    model = model_of(tmp_path, SMALL.replace("-2.0\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4"))

    log, context = model.score(model.start(), "zebra")

    assert log == pytest.approx((-0.5 - 100) * LN10)
    assert model.score(context, "a")[0] == pytest.approx(-0.7 * LN10)
    assert (model.knows("a"), model.knows("zebra")) == (True, False)


def test_unigrams_alone_need_no_context(tmp_path):
    text = "\\data\\\nngram 1=3\n\\1-grams:\n-99 <s>\n-0.3 </s>\n-0.3 yes\n\\end\\\n"

    model = model_of(tmp_path, text)

    assert model.start() == ()
    assert sentence(model, ["yes", "yes"]) == pytest.approx(3 * -0.3 * LN10)


class Generated:
    """A proper trigram: seen words have a share, the rest goes to the shorter context's, scaled to sum to 1."""

    def __init__(self, seed):
        draw = random.Random(seed)
        self.words = ["</s>", "<unk>", "a", "b", "c", "naïve"]
        shares = [draw.uniform(0.1, 1) for _ in self.words]
        self.seen = {(): {word: share / sum(shares) for word, share in zip(self.words, shares, strict=True)}}
        lasts = ["<s>", "a", "b", "c", "naïve", "<unk>"]
        contexts = [(word,) for word in lasts] + [
            pair for pair in product(lasts, lasts[1:]) if draw.random() < 0.4 and pair != ("<unk>", "<unk>")
        ]
        for context in contexts:
            some = draw.sample(self.words, draw.randint(1, 3))
            self.seen[context] = {word: draw.uniform(0.05, 0.3) for word in some}

    def chance(self, context, word):
        if context not in self.seen:
            return self.chance(context[1:], word)
        seen = self.seen[context]
        return seen[word] if word in seen else self.rest(context) * self.chance(context[1:], word)

    def rest(self, context):
        seen = self.seen[context]
        return (1 - sum(seen.values())) / (1 - sum(self.chance(context[1:], word) for word in seen))

    def arpa(self):
        grams = {1: {("<s>",): -99.0}, 2: {}, 3: {}}
        for context, seen in self.seen.items():
            grams[len(context) + 1] |= {(*context, word): math.log10(share) for word, share in seen.items()}
        for context in self.seen:
            if len(context) == 2 and context not in grams[2]:
                grams[2][context] = math.log10(self.chance(context[:1], context[1]))
        lines = ["\\data\\", *(f"ngram {order}={len(found)}" for order, found in grams.items())]
        for order, found in grams.items():
            lines += ["", f"\\{order}-grams:"]
            for gram, log in found.items():
                has_rest = gram in self.seen
                lines.append(f"{log!r}\t{' '.join(gram)}" + (f"\t{math.log10(self.rest(gram))!r}" if has_rest else ""))
        return "\n".join([*lines, "", "\\end\\", ""])


@pytest.mark.parametrize("seed", range(3))
def test_a_proper_model_sums_to_one_in_every_context_and_is_what_was_written(tmp_path, seed):
    generated = Generated(seed)
    model = model_of(tmp_path, generated.arpa())

    for length in range(3):
        for words in product(["a", "b", "c", "naïve", "zebra"], repeat=length):
            context = model.start()
            for word in words:
                context = model.score(context, word)[1]
            known = tuple("<unk>" if word == "zebra" else word for word in words)
            logs = {word: model.score(context, word)[0] for word in generated.words[1:]}
            logs["</s>"] = model.end(context)
            assert math.fsum(map(math.exp, logs.values())) == pytest.approx(1, abs=1e-9)
            for word, log in logs.items():
                history = ("<s>", *known)[-2:]
                assert log == pytest.approx(math.log(generated.chance(history, word)), abs=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\\data\\", "data", "ends after line 23"),
        ("\\end\\", "", "ends after line"),
        ("-0.3\ta b\t-0.75\n", "", "line 19, comes after 2 2-grams, but there must be 3"),
        ("ngram 2=3", "ngram 3=3", "line 5, must count 2-grams, but counts 3-grams"),
        ("ngram 1=5\nngram 2=3\nngram 3=1\n", "", 'must be "ngram 1=COUNT", but is "\\1-grams:"'),
        ("\\2-grams:", "\\3-grams:", "line 15, must be \\2-grams:"),
        ("-0.7\ta\t-0.25", "-0.7\ta b c\t-0.25", "line 11, must be a log-probability, 1 words and perhaps a backoff"),
        ("-0.1\t<s> a b", "-0.1\t<s> a b\t-0.5", "line 21, must be a log-probability, 3 words"),
        ("-0.7\ta", "a\t-0.7", 'line 11, must have a number, but has "a"'),
        ("-0.7\ta", "nan\ta", 'line 11, must have a number, but has "nan"'),
        ("-0.7\ta", "0.7\ta", "line 11, has a log-probability of 0.7"),
        ("-0.9\tb", "-0.9\ta", 'line 12, has "a" a second time'),
        ("-1.2\t</s>", "-1.2\tc", "has no </s>"),
        ("\\end\\", "\\4-grams:", "must be \\end\\"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, old, new, reason):
    assert old in SMALL

    with pytest.raises(DataError) as refused:
        model_of(tmp_path, SMALL.replace(old, new, 1), "damaged.arpa")

    assert "damaged.arpa" in str(refused.value)
    assert reason in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"none\.arpa cannot be read: No such file"):
        read_arpa(tmp_path / "none.arpa")


def test_a_trigram_is_found_by_its_last_two_words(tmp_path):
    model = model_of(tmp_path, SMALL)

    assert model.score(TRIGRAM[:2], TRIGRAM[2])[0] == pytest.approx(-0.1 * LN10)
    assert model.score(TRIGRAM[:2], TRIGRAM[2])[1] == TRIGRAM[1:]
