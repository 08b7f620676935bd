"""Room 3: what the teacher reads (demonstrations), and how its answer is said in the student's words (vocabulary)."""
