"""From images to class names: networks, their weights, and the folders that trained models live in."""
