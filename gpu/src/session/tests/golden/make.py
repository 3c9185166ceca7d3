"""Loss and gradients of three small models, as PyTorch computes them in f64 from f32 weights.

Run in this folder with PyTorch installed: python make.py. Writes mlp.json, cnn.json, gpt.json.
"""
import json

import torch
import torch.nn as nn
import torch.nn.functional as F


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Embedding(nn.Module):
    def __init__(self, rows, width, tokens):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.positions = nn.Parameter(torch.empty(tokens, width))

    def forward(self, x):
        return F.embedding(x.long(), self.weight) + self.positions


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(a.transpose(1, 2).reshape(b, t, d))


def numbers(tensor):
    return [float(f"{v:.9g}") for v in tensor.detach().flatten().tolist()]


def write(name, net, x, y):
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        drawn = torch.rand(parameter.shape, generator=generator) - 0.5
        parameter.data = drawn.float().double()
    loss = F.cross_entropy(net.double()(x).flatten(0, -2), y.flatten())
    loss.backward()
    golden = {
        "inputs": numbers(x),
        "labels": y.flatten().tolist(),
        "loss": loss.item(),
        "parameters": {f"layers.{n}": numbers(p) for n, p in net.named_parameters()},
        "gradients": {f"layers.{n}": numbers(p.grad) for n, p in net.named_parameters()},
    }
    with open(f"{name}.json", "w") as file:
        json.dump(golden, file, indent=None, separators=(",", ":"))


draw = torch.Generator().manual_seed(0)
values = lambda *shape: (torch.rand(*shape, generator=draw) - 0.5).float().double()
labels = lambda below, *shape: torch.randint(0, below, shape, generator=draw)

mlp = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 4))
write("mlp", mlp, values(5, 6), labels(4, 5))

cnn = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3))
write("cnn", cnn, values(4, 1, 8, 8), labels(3, 4))


def think(d):
    return Residual(nn.LayerNorm(d, bias=False), nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d))


d = 8
blocks = []
for _ in range(2):
    blocks += [Residual(nn.LayerNorm(d, bias=False), Attention(d, 2)), think(d)]
gpt = nn.Sequential(Embedding(7, d, 5), *blocks, nn.LayerNorm(d, bias=False), nn.Linear(d, 7))
write("gpt", gpt, labels(7, 3, 5).double(), labels(7, 3, 5))
