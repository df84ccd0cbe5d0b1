"""The Keras optimizer Adam_lr_mult, whole."""
