"""How a study is told of, in the same words on screen, in the report and in MLflow."""


def rounds_text(trained: int, planned: int | None = None) -> str:
    """How many rounds trained the model: neither round 0, which prepares, nor the last one, which only scores.

    Args:
      trained: rounds that a model came out of.
      planned: of the study; more than ``trained`` where the run stopped early. None: not known.
    """
    text = f"{trained} training round{'' if trained == 1 else 's'}, after round 0"
    return text if planned in (None, trained) else f"{text}; stopped early of {planned} planned"
