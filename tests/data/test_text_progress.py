"""What is told of a preparation."""

from etude.data.store.progress import SpokenProgress


def test_something_is_said_every_ten_seconds_and_at_the_end_of_what_took_long():
    heard, now = [], [0.0]
    progress = SpokenProgress("Tokenising t.txt", heard.append, clock=lambda: now[0])

    for seconds, done in ((4.0, 40), (11.0, 110), (12.0, 120), (22.0, 220), (25.0, 250)):
        now[0] = seconds
        progress(done * 1_000_000, 250_000_000)

    assert heard == [
        "Tokenising t.txt: 44 % of 250 MB, 10.0 MB/s.",
        "Tokenising t.txt: 88 % of 250 MB, 10.0 MB/s.",
        "Tokenising t.txt: 100 % of 250 MB, 10.0 MB/s.",
    ]


def test_nothing_is_said_of_what_is_over_at_once():
    heard = []
    progress = SpokenProgress("Tokenising t.txt", heard.append, clock=lambda: 1.0)

    progress(10, 10)
    progress(0, 0)

    assert heard == []
