"""Use a trained model on new images: read as in training, predict, write in their own size."""

from counterpoint.prediction.chosen import Chosen, choose_model
from counterpoint.prediction.loop import predict

__all__ = ["Chosen", "choose_model", "predict"]
