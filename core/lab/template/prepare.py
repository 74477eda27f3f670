"""Write a word backwards: `abcd: dcba`."""

from core import Example


def documents(rng, *, alphabet: str = "abcde", max_letters: int = 4):
    """Make the data: yield one Example after the other. Terrarium takes as many as `size` in config.toml allows.

    rng: draw everything that is random from it, so that the data is the same each time. The parameters after the * are
    settings of your own, keys of [prepare.params] in config.toml.
    """
    while True:
        word = "".join(rng.choices(alphabet, k=rng.randint(1, max_letters)))
        yield Example(
            prompt=f"{word}: ",  # what the model is given
            completion=f"{word[::-1]}\n",  # what it should write; the line break ends its answer
            group=f"{len(word)} letters",  # optional: each group gets its own share of right answers
        )
