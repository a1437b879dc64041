"""How the two bundled models are made: data, tokenizer, training, conversion, measurement."""
