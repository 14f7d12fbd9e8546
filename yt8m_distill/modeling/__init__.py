"""Networks: frames, backbones, heads, and the models made of them."""
