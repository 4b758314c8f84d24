"""What only the pages of the book and their tests need: claims, figures, records, costs."""
