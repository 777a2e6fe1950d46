"""Networks, and what a model folder says of them."""
