"""Optional projectors of other libraries, which are imported only when asked for."""
