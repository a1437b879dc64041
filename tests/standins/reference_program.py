"""What Transformers says of a model folder; runs in the environment of standins.reference, which starts it.

Reads a JSON object from the standard input: `folder`, `texts`, `sequences` (of tokens), `out`. Writes the file `out`
(.npz): `text<n>` the tokens of a text, `sequence<n>` float64 log-probabilities of shape (tokens, vocabulary), row i for
the token that follows token i.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
import transformers


def main() -> None:
    """Answer the request."""
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"], local_files_only=True)
    found: dict[str, Any] = {}
    for number, text in enumerate(request["texts"]):
        found[f"text{number}"] = np.array(tokenizer.encode(text))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        request["folder"], local_files_only=True, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        for number, sequence in enumerate(request["sequences"]):
            logits = model(torch.tensor([sequence])).logits[0].double()
            found[f"sequence{number}"] = torch.log_softmax(logits, dim=-1).numpy()
    np.savez(request["out"], **found)


main()
