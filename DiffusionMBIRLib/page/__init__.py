"""A run as one page of HTML that can be handed on: pictures, intervals, provenance, and how to repeat it."""

from .content import Content, gathered
from .pdf import write_pdf
from .write import require_pages, write_index, write_page, write_pages

__all__ = ["Content", "gathered", "require_pages", "write_index", "write_page", "write_pages", "write_pdf"]
