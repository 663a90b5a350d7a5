"""160 short e-mails in the writing style of one made-up person, for style.py and its peer.

She writes without capitals, opens with "hey NAME,", never uses full stops inside a thought but
dashes, gives times as "half past four" and closes with "x, m". Every letter is put together from
parts by a fixed seed: the same letters everywhere, hardly two alike.
"""

from __future__ import annotations

import random

_NAMES = [
    "ana",
    "ben",
    "carla",
    "dev",
    "eli",
    "fay",
    "gus",
    "hana",
    "ivo",
    "jun",
    "kim",
    "leo",
    "mara",
    "nils",
    "oda",
    "per",
]
_TIMES = (
    "quarter past nine",
    "half past four",
    "ten to seven",
    "just before noon",
    "around half past eight",
    "quarter to three",
)
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
_NEWS = (
    "the boiler man came by - says the valve is older than me - he'll bring the part on {day}",
    "mum rang about sunday lunch - i said yes for both of us, hope that's alright",
    "the choir moved to {day} - same hall, {time}, and please bring the blue folder",
    "i finished the draft - all eleven pages of it - have a look before {day} if you can",
    "our train is cancelled again - there's a bus at {time} and i'll keep you a seat",
    "the neighbours' cat had kittens under our shed - five of them, all grey",
    "i found your scarf behind the piano - it's washed and waiting for you",
    "the garden is nothing but courgettes - take some off me, i beg you",
    "the dentist can see you {day} at {time} - i took it before someone else did",
    "printer is on strike once more - could you run off two copies of the map for {day}",
)
_ASKS = (
    "tell me if {time} suits - if not we shift it",
    "could you ring {name} and let them know",
    "bring the big ladder, would you - mine has lost a rung",
    "shall i get tickets for {day} or wait till they're cheaper",
    "say the word and i'll put the kettle on at {time}",
    "mind asking {name} for the key - i'd rather not wake them",
    "let me know about {day} - no rush, well, a little rush",
)
_ASIDES = (
    "rain all week here - the ducks are smug about it",
    "i've taken up bread again - two bricks so far",
    "slept like a stone - for once",
    "still no sign of my left glove",
    "the radio says frost - i say nonsense",
    "my knee forecasts sunshine",
)


def letters() -> list[str]:
    chance = random.Random(160)
    pick = chance.choice

    def filled(part: str) -> str:
        return part.format(day=pick(_DAYS), time=pick(_TIMES), name=pick(_NAMES))

    texts = []
    for _ in range(160):
        lines = [filled(pick(_NEWS)), filled(pick(_ASKS))]
        if chance.random() < 0.6:
            lines.insert(chance.randrange(3), pick(_ASIDES))
        texts.append(f"hey {pick(_NAMES)},\n\n" + "\n".join(lines) + "\n\nx, m\n")
    return texts


def split() -> tuple[list[str], list[str]]:
    """The letters to learn from, and those held out."""
    all_letters = letters()
    return all_letters[:128], all_letters[128:]
