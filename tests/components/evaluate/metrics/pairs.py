"""Thirty answers with references each: short ones and captions, with empty and non-ASCII ones among them."""

from __future__ import annotations

from components.evaluate.metrics.metric import Answered

ANSWERS = [
    ("cat", "cat cat cat cat dog kitten cat cat cats cat"),
    ("The cat.", "cat cat dog dog dog dog dog dog dog dog"),
    ("", "yes yes yes no no yes yes yes yes yes"),
    ("   ", "left left left left left left right left left left"),
    ("two", "2 2 2 two two 3 2 2 2 2"),
    ("café au lait", "café cafe café café coffee café café café coffee latte"),
    ("Ñandú", "ñandú ñandú ostrich ostrich ñandú bird bird bird emu rhea"),
    ("猫", "猫 猫 猫 猫 猫 犬 犬 犬 犬 犬"),
    ("straße", "strasse straße straße street road straße way lane path straße"),
    ("İstanbul", "istanbul İstanbul Ankara izmir İstanbul istanbul bursa adana konya van"),
]
NUMBERS = [
    ("12.5", "12"),
    ("10.5", "10"),
    ("10.51", "10"),
    ("-3", "3"),
    ("5%", "0.05"),
    ("5%", "5"),
    ("0", "0"),
    ("0.01", "0"),
    ("nan", "7"),
    ("inf", "inf"),
    ("2010", "2015"),
    ("Yes", "yes"),
    ("Paris", "Pariss"),
    ("parsi", "Paris"),
    ("completely different", "Paris"),
    ("dont know", "don't know"),
    ("1,000", "1000"),
    ("a/b", "a b"),
    ("line\nbreak", "line break"),
    ("x", "a"),
]
SHORT = [Answered(answer, tuple(references.split())) for answer, references in ANSWERS]
SHORT += [Answered(answer, (reference, "other", "third", reference)) for answer, reference in NUMBERS]
SINGLE = [Answered(one.answer, one.references[:1]) for one in SHORT]

CAPTIONS = [
    ("A dog runs across the green field.", "A brown dog is running across a field.", "A dog runs over grass."),
    ("a man riding a wave on top of a surfboard", "A man rides a wave on a surfboard.", "A surfer in the sea."),
    ("", "A bowl of soup on a table.", "Soup is served in a bowl."),
    ("...", "Two birds sit on a wire.", "Birds resting on a cable, outside."),
    ("Two cats\nsleep on\r\nthe sofa.", "Two cats sleep on a sofa.", "Cats are sleeping on\na couch."),
    ("Un café crème à Paris.", "A café crème stands on a table in Paris.", "A “café” in Paris…"),
    ("東京 の 夜", "東京 の 夜 の 街", "A street of Tokyo (東京) at night."),
    ("The sign says 'STOP'!", 'A red stop sign that says "STOP".', "It's a stop sign."),
    ("a plate with 10% off | sale ||| tag", "A plate that is 10% off.", "A tag of a sale, $5.00, on a plate."),
    ("1 1/2 bus", "A red bus drives through the city.", "The double-decker bus is on the road."),
]
NOUNS = ("horse", "boat", "woman", "naïve painter")
PLACES = ("river", "old bridge", "mountain", "crowded market", "window")
DESCRIBED = [Answered(answer, tuple(references)) for answer, *references in CAPTIONS]
DESCRIBED += [
    Answered(
        f"A {noun} near the {place}", (f"The {noun} stands beside the {place}.", f"There is a {place} and a {noun}")
    )
    for noun in NOUNS
    for place in PLACES
]
