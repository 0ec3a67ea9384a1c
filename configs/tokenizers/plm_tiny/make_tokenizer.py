"""Makes `tokenizer.json` beside this file: `python configs/tokenizers/plm_tiny/make_tokenizer.py [OUT]`.

A byte-level BPE with Llama 3's split pattern: 256 bytes and 744 merges learned from the text below (ids 0-999), then
PLM's ten special tokens (ids 1000-1009; `<|image|>` is 1002). The same bytes come out on every run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BASE_ENTRIES = 1000
SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|image|>",
    "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Said in every conversation, so it must be short: one token a word.
SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
ROLES = "system\n\nuser\n\nassistant\n\n"

PHRASES = """
What is in this image? This image shows a dog. Which digit is this? The digit is 7. What digit is shown in the image?
Which number is written here? Answer with one digit. Answer with a single word. Answer the question using a single
word or phrase. How many people are there in the picture? There are two people. What color is the car? The car is red.
Yes. No. Yes, it is. No, it is not. Describe this image. Describe the image in detail. What is the man doing? He is
reading a book. What is the woman holding? She is holding an umbrella. Where is the cat? The cat is on the table. What
is written on the sign? Is there a bicycle? What can you see in the photo? Read the text in the image. What does the
label say? Which of these is correct? A B C D What happens in the video? What is shown in the chart? What is the
largest value? What is the title of the document?
""".strip()

PROSE = """
The sun rose over the hills and the light came slowly into the valley. A small river runs past the old mill, and
children play on its banks in the summer. When the rain stopped, people came out of their houses and walked along the
wet street. There is a market in the square every morning, where farmers sell apples, bread, cheese, eggs, fish and
flowers. She put the letter into her pocket and did not open it until she was at home. He had worked in the same
office for twenty years, and he knew everyone who came through the door. We should have started earlier, but nobody
had thought about the weather. They asked how long it would take, and the answer was that it depends on the road. I
think that this is the most important part of the work, because all the other parts follow from it. If you want to
learn something new, you have to make mistakes first. A black dog and a white cat sit under the green tree in front of
a blue house. Two men are standing near a yellow bus; one of them is wearing a red hat and the other is carrying a
brown bag. A woman with long hair is riding a horse on the beach. Three birds are flying above the water, and a boat
with a white sail can be seen in the background. The kitchen has a wooden table, four chairs, a window on the left and
a clock on the wall. A young girl is eating a piece of cake with her right hand. On the right side of the picture
there is a large building made of glass and stone. The train is leaving the station while several people are waiting
on the platform. A plate with rice, meat and vegetables stands next to a cup of coffee. In the center of the photo a
child is throwing a ball to another child. Above the mountains the sky is dark, with clouds of grey and purple. The
chart compares the number of students in each year; the highest bar is the third from the left. The x-ray of the chest
shows no sign of disease, the heart is of normal size and both lungs are clear. The patient is a woman of forty years
with pain on the left side. The scan was taken after the operation. The table lists the price, the quantity and the
total of every order. The first line of the form holds the name, the second one the address, and the date is at the
bottom of the page. Small things matter: where a word stands, what came before it, and what was meant. Some questions
have a short answer, others need a whole story. Please look at the picture again, then say what you would change, and
why. It could be true, or it might only look that way from here. Between the two of them there was never any doubt
about who should speak first. Many years later the town had grown, yet the bridge was still there. Water, air, fire
and earth were once thought to be everything that exists. Today we know of more than one hundred elements, and of
smaller parts inside them. Light takes about eight minutes to come from the sun. A machine can learn to see by looking
at many examples; what it has learned is kept in a set of numbers. Good tools are simple, do one thing well, and tell
you clearly when something has gone wrong. Write it down before you forget.
"""

NUMBERS = " zero one two three four five six seven eight nine ten eleven twelve"


def corpus() -> Iterator[str]:
    """Training texts; repetition is weight."""
    for _ in range(60):
        yield SYSTEM_PROMPT
        yield ROLES
    for _ in range(6):
        yield PHRASES
        yield NUMBERS
    for _ in range(2):
        yield PROSE
    yield " ".join(str(number) for number in range(101))


def make() -> str:
    """The text of `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_ENTRIES, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
    return tokenizer.to_str(pretty=True) + "\n"


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("tokenizer.json")
    out.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
