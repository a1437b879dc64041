"""How far figures can be trusted: pure, over plain numbers."""
