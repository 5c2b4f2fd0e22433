"""The last layer of a torch network as a version of a model whose embeddings you bring.

palimpsest serve &
python -m examples.import_torch
"""

from __future__ import annotations

import httpx
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

from examples.heads import ask, bring_in, local

EXPONENT = -10  # steps of about 0.001, up to 32
STEPS = 150


def run(http: httpx.Client) -> float:
    """The share of test rows on which service and network agree."""
    x, y = load_digits(return_X_y=True)
    rows, labels = torch.from_numpy(x).float() / 16, torch.from_numpy(y)
    x_train, x_test, y_train, _ = train_test_split(rows, labels, random_state=0)
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(64, 32), nn.ReLU()), nn.Linear(32, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(head(body(x_train)), y_train).backward()
        optimizer.step()

    with torch.inference_mode():
        embeddings = body(x_test)
        expected = [str(label) for label in head(embeddings).argmax(dim=1).tolist()]
        weight, bias = head.weight.numpy(), head.bias.numpy()
    version = bring_in(http, weight, bias, [str(digit) for digit in range(10)], EXPONENT)
    answers = ask(http, version, embeddings.numpy())
    return float(np.mean([a == b for a, b in zip(answers, expected, strict=True)]))


if __name__ == "__main__":
    with local() as http:
        print(f"service and network agree on {run(http):.1%} of the test rows")
