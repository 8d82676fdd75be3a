"""gpt4o-lit: experiments with Transformers on PyTorch Lightning."""

__version__ = "0.1.0"
