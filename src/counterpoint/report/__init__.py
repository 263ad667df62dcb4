"""What people look at: tables, figures, the live display."""
