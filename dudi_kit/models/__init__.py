"""Room 4: student, teacher and reference: where their weights come from, and how a batch is read."""
