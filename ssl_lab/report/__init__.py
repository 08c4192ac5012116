"""Pages and plots made from run directories."""

from ssl_lab.report.page import write_comparison, write_report
from ssl_lab.report.tables import markdown_table, results_table

__all__ = ["markdown_table", "results_table", "write_comparison", "write_report"]
