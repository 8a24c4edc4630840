"""Models: architectures by name, input and output layers, pretrained weights and precision."""
