"""core.models.ngrams: tables and shares say what counting says; no id is read before its place."""

from __future__ import annotations

import pytest
import torch

from core.config import Config
from core.contradictions import Contradiction
from core.defaults import resolve
from core.errors import UserError
from core.models.gpt import GPT
from core.models.ngrams import LARGEST_TABLE, NGrams, Smear, fitting_order
from core.training.optimizers import roles_of


def filled(order: int, vocab_size: int) -> NGrams:
    """Tables whose entries tell their own place."""
    ngrams = NGrams(order, vocab_size)
    with torch.no_grad():
        for length, table in enumerate(ngrams.tables, start=1):
            table.weight[: table.padding_idx] = torch.arange(vocab_size ** (length + 1)).float().view(-1, vocab_size)
    return ngrams


@pytest.mark.parametrize("T", [1, 2, 3, 9])
@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_each_table_is_looked_up_by_the_last_ids(order: int, T: int) -> None:
    V, ids = 5, torch.randint(5, (3, T), generator=torch.Generator().manual_seed(0))
    logits = filled(order, V)(ids)
    assert logits.shape == (3, T, V)
    for row in range(3):
        for place in range(T):
            expected = torch.zeros(V)
            for length in range(1, min(order - 1, place + 1) + 1):
                number = 0
                for token in ids[row, place - length + 1 : place + 1].tolist():
                    number = V * number + token
                expected += V * number + torch.arange(V)
            assert torch.equal(logits[row, place], expected)


def test_places_with_nothing_before_them_never_learn() -> None:
    ngrams, ids = filled(3, 4), torch.tensor([[1, 2, 3]])
    ngrams(ids).sum().backward()
    trigrams = ngrams.tables[1]
    assert trigrams.weight.grad is not None and isinstance(trigrams.padding_idx, int)
    assert trigrams.weight.grad.sum(1).nonzero().flatten().tolist() == [4 * 1 + 2, 4 * 2 + 3]
    assert not trigrams.weight[trigrams.padding_idx].any()


def test_a_table_that_is_too_large_is_refused_with_what_would_fit() -> None:
    with pytest.raises(UserError) as caught:
        NGrams(3, 256)
    assert str(caught.value) == (
        "train.model.ngram = 3: a table of 3-grams over 256 ids would have 16,777,216 numbers\n"
        "  At most 4,194,304 are sensible: lower it to 2, or take an encoder with fewer ids."
    )


@pytest.mark.parametrize(("vocab_size", "order"), [(2, 22), (65, 3), (161, 3), (162, 2), (2048, 2), (2049, 0)])
def test_the_order_that_fits(vocab_size: int, order: int) -> None:
    assert fitting_order(vocab_size) == order
    assert not order or vocab_size**order <= LARGEST_TABLE < vocab_size ** (order + 1)


def test_one_gram_is_no_table() -> None:
    config = Config.model_validate({"train": {"model": {"ngram": 1}}})
    with pytest.raises(Contradiction, match=r"there is no table of 1-grams"):
        resolve(config)


def test_smear_adds_a_share_of_the_token_before() -> None:
    smear, x = Smear(2), torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])
    assert torch.equal(smear(x), x)
    with torch.no_grad():
        smear.share.copy_(torch.tensor([0.5, -1.0]))
    assert smear(x).tolist() == [[[1.0, 10.0], [2.5, 10.0], [4.0, 10.0]]]


@pytest.mark.parametrize("keys", [{"smear": True}, {"ngram": 2}, {"smear": True, "ngram": 4}])
def test_no_token_sees_a_later_one(keys: dict[str, bool | int]) -> None:
    torch.manual_seed(0)
    shape = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8}
    config = Config.model_validate({"train": {"model": {**shape, **keys}}})
    model = GPT(resolve(config).train.model, 7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    ids = torch.randint(7, (1, 8))
    other = ids.clone()
    other[0, 5] = (ids[0, 5] + 1) % 7
    assert torch.equal(model(ids)[:, :5], model(other)[:, :5])
    assert not torch.equal(model(ids)[:, 5:], model(other)[:, 5:])


def test_tables_learn_at_their_own_rate() -> None:
    config = Config.model_validate({"train": {"model": {"n_layer": 1, "ngram": 3}}})
    model = GPT(resolve(config).train.model, 7)
    roles = roles_of(model)
    assert {name for name, role in roles.items() if role == "ngram"} == {
        "ngrams.tables.0.weight",
        "ngrams.tables.1.weight",
    }
    assert roles["smear.share"] == "other" and roles["transformer.wte.weight"] == "embedding"
