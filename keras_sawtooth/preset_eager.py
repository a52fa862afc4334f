"""What Keras would compute or allocate while it reads a config."""


def check_eager(value):
    """Refuse a part of a config by which Keras takes memory before any check of sizes.

    Args:
        value: dict, any part of a config.

    Raises:
        ValueError: if it is a recurrent layer with a state.
    """
    config = value.get("config")
    # Keras, too, takes 1 for True.
    if isinstance(config, dict) and config.get("stateful"):
        raise ValueError(
            "Its config asks for a stateful recurrent layer, whose state is of a size "
            "that no file bounds."
        )
