"""The paper's tables on open data: tasks x methods x planes, resumable, with tables, plots and pictures."""
