"""A hypernetwork's tasks: by index or token, one by one, frozen, brought by a state."""

import numpy as np
import pytest
import torch
from nets import small
from torch.nn.functional import cross_entropy

from hnetlib.hypernet import Hypernetwork
from hnetlib.targets import MLP


def test_gradients_reach_the_used_task_token_and_all_chunk_tokens():
    hnet = Hypernetwork(MLP((10, 8, 3)), 3, num_chunks=4, hnet_hidden=(16,))
    logits = hnet.run_target(hnet(1), torch.rand(32, 10))
    cross_entropy(logits, torch.randint(3, (32,))).backward()
    assert hnet.task_tokens[1].grad.abs().max() > 0
    assert hnet.task_tokens[0].grad is None
    assert (hnet.chunk_tokens.grad.abs().amax(1) > 0).all()


def test_a_frozen_token_does_not_move_while_chunk_tokens_do():
    hnet = Hypernetwork(MLP((10, 8, 3)), 2, num_chunks=4, hnet_hidden=(16,))
    optimizer = torch.optim.Adam(hnet.parameters(), lr=0.1, weight_decay=0.1)

    def step(task):
        optimizer.zero_grad()
        hnet.run_target(hnet(task), torch.rand(8, 10)).square().sum().backward()
        optimizer.step()

    step(0)
    hnet.freeze_token(0)
    token, chunk_tokens = hnet.task_tokens[0].clone(), hnet.chunk_tokens.clone()
    step(0)
    step(1)
    assert torch.equal(hnet.task_tokens[0], token)
    assert not torch.equal(hnet.chunk_tokens, chunk_tokens)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, torch.tensor])
def test_an_index_of_any_integer_kind(kind):
    hnet = small()
    assert torch.equal(hnet(kind(1))["layers.0.weight"], hnet(1)["layers.0.weight"])
    assert hnet.parameters_of(kind(1))[-1] is hnet.task_tokens[1]


@pytest.mark.parametrize("index", [2, -1, np.int64(7)])
def test_an_index_out_of_range_says_how_many_there_are(index):
    with pytest.raises(IndexError, match=f"one of the 2 there are.* got {index}"):
        small()(index)


@pytest.mark.parametrize("index", [True, 1.0, "1", torch.tensor([1]), torch.tensor(True), None])
def test_what_is_no_index_is_refused(index):
    with pytest.raises(TypeError, match="task: expected an integer or a token"):
        small()(index)


def test_a_token_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \[6\], got \[5\]"):
        small()(torch.zeros(5))
    with pytest.raises(ValueError, match=r"expected shape \[..., 6\], got \[2, 5\]"):
        small().generate(torch.zeros(2, 5))


def test_a_token_or_a_batch_of_tasks_is_as_each_by_itself():
    hnet = small()
    token = hnet.task_tokens[1]
    together = hnet.weights_of(torch.tensor([1, 0]))
    for name, weight in hnet(1).items():
        assert torch.equal(hnet(token)[name], weight)
        torch.testing.assert_close(together[name][0], weight)


def test_tasks_come_one_by_one_as_they_would_at_the_start():
    torch.manual_seed(3)
    at_once = small(3)
    torch.manual_seed(3)
    growing = small(0)
    assert [growing.add_task() for _ in range(3)] == [0, 1, 2]
    assert growing.num_tasks == 3
    for one, other in zip(at_once.parameters(), growing.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_optimizer_of_a_task_has_all_but_other_tokens():
    hnet = small(3)
    hnet.freeze_token(0)
    ours = {id(p) for p in hnet.parameters_of(1)}
    left_out = [n for n, p in hnet.named_parameters() if id(p) not in ours]
    assert left_out == ["task_tokens.0", "task_tokens.2"]
    hnet.output_layer.requires_grad_(False)
    assert len(hnet.parameters_of(1)) == len(ours) - 2
