"""Networks, their weights, predictions, and the model folders that they are saved to."""
