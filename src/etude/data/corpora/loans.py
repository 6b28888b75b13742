"""`loans`: requests for a loan, with numbers, categories and gaps; whether each is granted, and at which rate.

Whether a request is granted is decided by a rule and then turned around in 8 of 100 requests, so that no classifier is
right in more than 92 % of them in the long run. The rate is a rule too, to which an even number from -50 to 50 in
hundredths is added: no prediction of it has a smaller mean squared error than that of this noise.
"""

from collections.abc import Iterator
from typing import Final

from etude.base.randomness import seed_of
from etude.data.corpora.chance import Chance

COLUMNS: Final = ("age", "income", "debt", "years", "employment", "purpose", "postcode", "granted", "rate")
"""Years of age; income and debt in thousands; years that the loan is for; and so on. `granted` and `rate` follow."""
SIZES: Final = {"train": 6_000, "val": 1_000, "test": 1_000}
TURNED: Final = 8
"""Of 100 requests, how many are decided against the rule."""
NOISE: Final = 50
"""Most that is added to a rate or taken from it, in hundredths."""
EMPLOYMENT: Final = {"permanent": 30, "temporary": 5, "self-employed": 12, "none": -25, "": 0}
"""What each is worth; the empty one is not known."""
PURPOSE: Final = {"house": 15, "car": 0, "studies": 10, "travel": -20}
POSTCODES: Final = {1010: 6, 2020: -6, 3030: 12, 4040: -12, 5050: 0}
"""Numbers that are names."""
WITHOUT_INCOME: Final = 40
"""What stands for an income that is not known."""


def loans(split: str, seed: int, size: int) -> Iterator[tuple[str, ...]]:
    """Give `size` requests; a smaller size is the beginning of a larger."""
    for index in range(size):
        yield _row(Chance(seed_of(seed, "loans", split, index)))


def _row(chance: Chance) -> tuple[str, ...]:
    age, years = chance.between(18, 80), chance.between(1, 30)
    income, debt = chance.between(10, 120), chance.between(0, 100)
    employment, purpose = chance.pick([*EMPLOYMENT]), chance.pick([*PURPOSE])
    postcode = chance.pick([*POSTCODES])
    told = "" if chance.percent(10) else str(income)
    worth = (income if told else WITHOUT_INCOME) - debt + EMPLOYMENT[employment] + PURPOSE[purpose]
    worth += POSTCODES[postcode] - abs(age - 45) // 2
    granted = (worth > 0) != chance.percent(TURNED)
    rate = 600 - 2 * worth + 5 * years + chance.between(-NOISE, NOISE)
    answer = "yes" if granted else "no"
    place = (str(age), told, str(debt), str(years), employment, purpose, str(postcode))
    return (*place, answer, f"{rate // 100}.{rate % 100:02d}")
