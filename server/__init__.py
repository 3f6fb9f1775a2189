"""The HTTP service: FastAPI around the models and indexes of one store."""

from .app import create_app

__all__ = ["create_app"]
