"""Members' attention in two parts: with the CPU's kernel, and as a GPU's flash kernel is called (a stand-in on a CPU)."""

import pytest
import torch

from swirl_lightning.scoring import two_parts


def flash(query, key, value, dropout, causal, debug, *, scale):
    """What ``_scaled_dot_product_flash_attention`` returns; it takes no mask and pairs heads one to one."""
    assert dropout == 0.0
    assert query.shape[1] == key.shape[1] == value.shape[1]
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if causal:
        assert query.shape[2] == key.shape[2]
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    out = (scores.softmax(-1) @ value.float()).to(query.dtype)
    sizes = (None, None, query.shape[2], key.shape[2])
    return (out, scores.logsumexp(-1), *sizes, torch.zeros(2), torch.zeros(0), torch.zeros(0))


def flash_backward(grad, query, key, value, out, lse, cum_q, cum_k, max_q, max_k, dropout, causal, seed, offset, *, scale):
    """The kernel's backward pass: it recomputes the weights from the log-sum-exp that it is given."""
    assert (max_q, max_k, dropout) == (query.shape[2], key.shape[2], 0.0)
    scores = (query @ key.transpose(-1, -2)) * scale
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    weights = (scores - lse[..., None]).exp()
    of_scores = weights * (grad @ value.transpose(-1, -2) - (grad * out).sum(-1, keepdim=True))
    return of_scores @ key * scale, of_scores.transpose(-1, -2) @ query * scale, weights.transpose(-1, -2) @ grad


@pytest.fixture(params=["cpu", "flash"])
def kernel(request, monkeypatch):
    if request.param == "flash":
        monkeypatch.setattr(two_parts, "flash_attention", flash)
        monkeypatch.setattr(two_parts, "flash_attention_backward", flash_backward)
        monkeypatch.setattr(two_parts, "two_parts_kernel", lambda query, value: two_parts._Flash())
    return request.param


@pytest.mark.parametrize("lengths", [(7, 7, 7), (7, 3, 3), (2, 7, 5)], ids=["equal", "two equal", "unequal"])
def test_both_kernels_are_plain_attention(kernel, lengths):
    torch.manual_seed(0)
    b, g, t, heads, kv, d, p = len(lengths), 3, 4, 4, 2, 8, 7
    made = [torch.randn(b, g, t, heads, d), *(torch.randn(b, kv, p, d) for _ in range(2))]
    made += [torch.randn(b, g, t, kv, d) for _ in range(2)]
    query, pk, pv, key, value = (x.requires_grad_() for x in made)
    out = two_parts.attend_in_two_parts(query, pk, pv, key, value, lengths, 0.3)
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), made)
    rows = []
    for i, length in enumerate(lengths):
        for j in range(g):
            keys, values = (
                torch.cat([shared[i, :, :length], own[i, j].transpose(0, 1)], dim=1).repeat_interleave(heads // kv, dim=0)
                for shared, own in ((pk, key), (pv, value))
            )  # [heads, length + T, d]
            scores = query[i, j].transpose(0, 1) @ keys.transpose(-1, -2) * 0.3
            seen = torch.ones(t, length + t).tril(length).bool()
            rows.append((scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    plain = torch.stack(rows).view_as(out)
    expected = torch.autograd.grad((plain * weight).sum(), made)
    assert torch.allclose(out, plain, atol=1e-5)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_stand_in_takes_what_the_operator_takes():
    schema = torch.ops.aten._scaled_dot_product_flash_attention.default._schema
    assert [a.name for a in schema.arguments] == [
        *("query", "key", "value", "dropout_p", "is_causal", "return_debug_mask", "scale"),
    ]
    assert len(schema.returns) == 9
    backward = torch.ops.aten._scaled_dot_product_flash_attention_backward.default._schema
    assert [a.name for a in backward.arguments] == [
        *("grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k"),
        *("dropout_p", "is_causal", "philox_seed", "philox_offset", "scale"),
    ]


def test_a_kernel_is_there_on_a_cpu_and_for_half_precision_on_a_gpu(monkeypatch):
    single, double = torch.zeros(1, 8), torch.zeros(1, 16)
    assert isinstance(two_parts.two_parts_kernel(single, single), two_parts._Cpu)
    assert two_parts.two_parts_kernel(single, double) is None  # values of another size
    assert two_parts.two_parts_kernel(single.to("meta"), single.to("meta")) is None
