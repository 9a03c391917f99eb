"""Import from torch: ATen operators one by one, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.torch_functions import check, random

X, Y = random(2, 3, 4), random(2, 3, 4, seed=1)
POSITIVE = X.abs() + 0.1
I, J = torch.arange(-6, 6).reshape(3, 4), torch.tensor([[2], [-3], [5]])
B = X > 0


@pytest.mark.parametrize(
    "function",
    [
        *(torch.neg, torch.abs, torch.sign, torch.relu, torch.exp, torch.sin, torch.cos),
        *(torch.tanh, torch.erf, torch.sigmoid, functional.silu, torch.floor, torch.ceil),
        *(torch.round, torch.isnan, torch.isinf, torch.logical_not, functional.gelu),
        *(torch.square, functional.relu6, functional.leaky_relu, functional.hardtanh),
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda x: x.clamp(-0.5, 0.5),
        lambda x: x.clamp(min=0.1),
        lambda x: x.clamp(max=0.1),
        lambda x: x**3,
        lambda x: 2.0**x,
        lambda x: torch.rsub(x, 1.0, alpha=2.0),
        lambda x: torch.add(x, x, alpha=3),
        lambda x: torch.addcmul(x, x, x + 1, value=0.5),
        lambda x: x.masked_fill(x > 0, -1.0),
        lambda x: torch.where(x > 0, x, 0.5),
        lambda x: x.to(torch.float64),
        lambda x: (x * 3).to(torch.int32),
        lambda x: functional.dropout(x, 0.5, training=False),
    ],
)
def test_elementwise_of_floats(function: Callable[..., Any]) -> None:
    check(function, X, decompose=False)


@pytest.mark.parametrize(
    "function", [torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.log1p]
)
def test_elementwise_of_positive_floats(function: Callable[..., Any]) -> None:
    check(function, POSITIVE, decompose=False)


@pytest.mark.parametrize(
    "function",
    [
        *(torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum),
        *(torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge, torch.remainder, torch.fmod),
        lambda x, y: torch.div(x, y, rounding_mode="floor"),
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    ],
)
@pytest.mark.parametrize("operands", [(X, Y), (I, J), (I, X[0, :, :]), (X, torch.tensor(3))])
def test_binary_promotes_like_torch(function: Callable[..., Any], operands: Any) -> None:
    check(function, *operands, decompose=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: x + 1.5,
        lambda x: x / 2,
        lambda x: x // 2,
        lambda x: x % 3,
        lambda x: x > 0.5,
        lambda x: x == 2,
        lambda x: torch.sigmoid(x),
        lambda x: x.sum(),
        lambda x: x.to(torch.int8) + 100,
        lambda x: x * torch.tensor(2.5),
        lambda x: (x > 0) & (x < 4) | (x == -6),
        lambda x: ~(x > 0) ^ (x == 1),
        lambda x: (x > 0) + 1,
        lambda x: torch.logical_and(x, x - 1),
        lambda x: x.to(torch.bool),
        lambda x: torch.where(x > 0, x, 0.5),
    ],
)
def test_integers_promote_like_torch(function: Callable[..., Any]) -> None:
    check(function, I, decompose=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(),
        lambda x: x.sum(-1),
        lambda x: x.mean((0, 2), keepdim=True),
        lambda x: x.mean(),
        lambda x: x.amax(1),
        lambda x: x.amin((0, 1), keepdim=True),
        lambda x: x.max(),
        lambda x: torch.max(x, -1),
        lambda x: torch.max(x, x * 2),
        lambda x: x.argmax(-1),
        lambda x: x.argmax(),
        lambda x: x.argmax(1, keepdim=True),
        lambda x: x.prod(1),
        lambda x: x.cumsum(1),
        lambda x: (x > 0).any(-1),
        lambda x: (x > 0).all(),
        lambda x: (x > 0).sum(1),
        lambda x: x.var(-1),
        lambda x: x.var(-1, unbiased=False, keepdim=True),
        lambda x: x.std((1, 2), correction=2),
        lambda x: torch.var_mean(x, -1, correction=0, keepdim=True),
        lambda x: x.norm(dim=-1),
        lambda x: torch.linalg.vector_norm(x, 1, dim=1, keepdim=True),
        lambda x: x.softmax(1),
        lambda x: x.log_softmax(-1),
        lambda x: x.softmax(-1, dtype=torch.float64),
        lambda x: functional.layer_norm(x, (4,)),
        lambda x: functional.layer_norm(x, (3, 4), x[0], x[1], 1e-3),
        lambda x: functional.layer_norm(x, (4,), None, x[0, 0]),
        lambda x: functional.rms_norm(x, (4,), x[0, 0], 1e-6),
        lambda x: functional.rms_norm(x, (4,)),
    ],
)
def test_reductions_and_normalizations(function: Callable[..., Any]) -> None:
    check(function, X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(6, -1),
        lambda x: x.flatten(1),
        lambda x: x.unflatten(2, (2, 2)),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.transpose(0, -1),
        lambda x: x[0].t(),
        lambda x: x.mT,
        lambda x: x.unsqueeze(-1).expand(2, 3, 4, 5),
        lambda x: x[:1].squeeze(0),
        lambda x: x[:, 1:, ::2],
        lambda x: x[:, -2:],
        lambda x: x[..., 3:9],
        lambda x: x[:, -1],
        lambda x: x.narrow(2, 1, 2),
        lambda x: x.split(2, dim=2),
        lambda x: x.split([1, 3], dim=-1),
        lambda x: x.chunk(2, dim=1),
        lambda x: x.unbind(1),
        lambda x: torch.cat([x, x * 2], 1),
        lambda x: torch.cat([x, x.to(torch.float64)], -1),
        lambda x: torch.stack([x, -x], 2),
        lambda x: torch.stack([x, -x], -1),
        lambda x: x.repeat(2, 1, 3),
        lambda x: x[0].repeat(2, 1, 3),
        lambda x: x.repeat_interleave(3, dim=1),
        lambda x: functional.pad(x, (1, 2, 0, 3), value=0.5),
        lambda x: x.flip(1),
        lambda x: x.roll((1, -1), (1, 2)),
        lambda x: x.tril(),
        lambda x: x.triu(1),
        lambda x: (x > 0).tril(-1),
        lambda x: (x.clone(), x.contiguous().detach()),
        lambda x: x.new_zeros(2, 3) + 1,
        lambda x: torch.full_like(x, 3),
        lambda x: torch.ones(3, dtype=torch.bool),
        lambda x: torch.arange(5) + torch.arange(1, 11, 2),
        lambda x: torch.arange(3.0),
    ],
)
def test_movement_and_creation(function: Callable[..., Any]) -> None:
    check(function, X)


INDEX = torch.tensor([2, 0, 1, -1])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: x[:, i],
        lambda x, i: x.index_select(1, i.abs()),
        lambda x, i: functional.embedding(i.abs(), x[0]),
        lambda x, i: x[i % 2, i],
        lambda x, i: x[i % 2, :, i],
        lambda x, i: x[:, i[:, None], i],
        lambda x, i: x[torch.arange(2)[:, None, None], torch.arange(3)[None, None, :]],
        lambda x, i: x[:, torch.arange(3)[None, :], torch.arange(1, 4)[:, None]],
        lambda x, i: x[torch.arange(2), i[:2]],
        lambda x, i: torch.gather(x, 2, i.abs().expand(2, 3, 4)),
        lambda x, i: torch.gather(x, 1, i.abs().reshape(1, 1, 4)),
        lambda x, i: x.index_copy(1, i[:2], x[:, :2] * 2),
        lambda x, i: torch.ops.aten.index_put(x, [None, i[:2]], torch.tensor(7.0)),
        lambda x, i: torch.slice_scatter(x, x[:, :2] + 1, 1, 1, 3),
        lambda x, i: torch.slice_scatter(x, x[:, :2] + 1, 1, 0, 3, 2),
        lambda x, i: torch.select_scatter(x, x[:, 0], 1, -1),
    ],
)
def test_indexing(function: Callable[..., Any]) -> None:
    check(function, X, INDEX)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a @ b,
        lambda a, b: a[0] @ b[0],
        lambda a, b: a[0, 0] @ b,
        lambda a, b: a @ b[0, :, 0],
        lambda a, b: a[0, 0] @ b[0, :, 0],
        lambda a, b: torch.bmm(a, b),
        lambda a, b: torch.mm(a[0], b[0]),
        lambda a, b: torch.addmm(a[0, 0, :1], a[0], b[0], beta=0.5, alpha=2.0),
        lambda a, b: torch.baddbmm(b[:, :3], a, b),
        lambda a, b: functional.linear(a, b.transpose(1, 2)[0], b[0, 0]),
        lambda a, b: functional.linear(a, b.transpose(1, 2)[1]),
        lambda a, b: torch.einsum("bij,bjk->bki", a, b),
    ],
)
def test_products(function: Callable[..., Any]) -> None:
    check(function, X, random(2, 4, 5, seed=2))


def attend(**options: Any) -> Callable[..., torch.Tensor]:
    return lambda *inputs: functional.scaled_dot_product_attention(*inputs, **options)


Q, K, V = random(2, 4, 3, 8), random(2, 4, 5, 8, seed=1), random(2, 4, 5, 8, seed=2)
MASK = random(2, 1, 3, 5, seed=3)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (attend(), (Q, K, V)),
        (attend(scale=0.5), (Q, K, V)),
        (attend(), (Q, K, V, MASK)),
        (attend(), (Q, K, V, MASK > 0)),
        (attend(), (Q, K, V, MASK[0, 0] > 9)),
        (attend(is_causal=True), (Q, Q, Q)),
        (attend(is_causal=True), (Q, K, V)),
        (attend(is_causal=True), (K, Q, Q)),
        (attend(), (Q[0], K[0], V[0])),
        (attend(enable_gqa=True), (Q, K[:, :2], V[:, :2])),
    ],
)
def test_attention(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> None:
    check(function, *inputs)


def test_patch_convolution() -> None:
    image, weight = random(2, 3, 8, 12), random(5, 3, 4, 4, seed=1)
    check(lambda x, w: functional.conv2d(x, w, stride=4), image, weight)
    check(lambda x, w: functional.conv2d(x, w, w[:, 0, 0, 0], stride=(4, 4)), image, weight)
