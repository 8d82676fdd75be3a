"""Models of Hugging Face, read and written; the only folder that knows their names."""

from gpt4o_lit.interop.load import load_hugging_face, open_hugging_face
from gpt4o_lit.interop.save import save_hugging_face

__all__ = ["load_hugging_face", "open_hugging_face", "save_hugging_face"]
