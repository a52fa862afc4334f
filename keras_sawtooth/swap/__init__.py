"""`replace_dense`: sawtooth layers in the place of those of a model."""
