"""What people read: tables, plots, pages, cards, exports."""
